//! Writes JSON straight into a buffer, key by key.
//!
//! A page with 500 commands is some 30,000 keys a second; a tree of values would allocate for each of them, on the
//! processors that the callers run on. Strings go through `serde_json`, which knows what must be escaped.

use std::io::Write;

/// One JSON value.
pub(crate) trait Value {
    fn write(&self, out: &mut Vec<u8>);
}

/// Writing to a `Vec` cannot fail.
macro_rules! displayed {
    ($($number:ty),*) => {$(
        impl Value for $number {
            fn write(&self, out: &mut Vec<u8>) {
                let _ = write!(out, "{self}");
            }
        }
    )*};
}
displayed!(bool, u8, u32, u64, usize);

/// JSON knows no infinity: what is not finite is no value.
impl Value for f64 {
    fn write(&self, out: &mut Vec<u8>) {
        let _ = if self.is_finite() { write!(out, "{self}") } else { out.write_all(b"null") };
    }
}

impl Value for &str {
    fn write(&self, out: &mut Vec<u8>) {
        let _ = serde_json::to_writer(out, self);
    }
}

impl<T: Value> Value for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// A value that is JSON already.
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl Value for Raw<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

/// An object that is being written.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl Object<'_> {
    /// Appends an object with what `fill` puts into it.
    pub(crate) fn write(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        fill(&mut Object { out, empty: true });
        out.push(b'}');
    }

    /// Appends a field. The key is one of ours and needs no escaping.
    pub(crate) fn field(&mut self, key: &'static str, value: impl Value) -> &mut Self {
        value.write(self.key(key));
        self
    }

    pub(crate) fn object(&mut self, key: &'static str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        Object::write(self.key(key), fill);
        self
    }

    /// Appends a list, each item as `write` writes it.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, T),
    ) -> &mut Self {
        let out = self.key(key);
        out.push(b'[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write(out, item);
        }
        out.push(b']');
        self
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let hostile = "\"\\\r\n\t\0\u{2028}\u{7f}</script>\u{1f4a5} data: x\n\nevent: y";
        let mut out = Vec::new();
        Object::write(&mut out, |object| {
            object.field("text", hostile).field("none", None::<u32>).field("nan", f64::NAN).field("big", u64::MAX);
            object.list("list", [1_u32, 2], |out, n| n.write(out)).object("inner", |inner| {
                inner.field("half", 0.5).field("raw", Raw(b"[true]"));
            });
        });
        let read: serde_json::Value = serde_json::from_slice(&out).expect("it is JSON");
        let expected = serde_json::json!({
            "text": hostile, "none": null, "nan": null, "big": u64::MAX,
            "list": [1, 2], "inner": { "half": 0.5, "raw": [true] },
        });
        assert_eq!(read, expected);
        assert!(!out.iter().any(|byte| b"\r\n\0".contains(byte)), "one line: it may be the data of an event");
    }
}
