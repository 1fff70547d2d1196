//! How a single setting is written in a file.
//!
//! A duration is `"250ms"`, and what can be switched off is `"off"`. Everything else is what it is in Rust.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// The form of a setting in a file, and what it is in a [`Config`](crate::Config).
pub(super) trait Written: Sized {
    type Value;

    /// `None` where a file says it by not naming the setting.
    fn of(value: &Self::Value) -> Option<Self>;

    /// Lays what the file says over what was there.
    fn lay_over(&self, value: &mut Self::Value);
}

/// A setting that replaces what was there.
pub(super) trait Whole: Sized {
    type Value;
    fn of(value: &Self::Value) -> Self;
    fn value(&self) -> Self::Value;
}

impl<W: Whole> Written for W {
    type Value = W::Value;

    fn of(value: &W::Value) -> Option<Self> {
        Some(W::of(value))
    }

    fn lay_over(&self, value: &mut W::Value) {
        *value = self.value();
    }
}

macro_rules! as_it_is {
    ($($Type:ty),*) => {
        $(impl Whole for $Type {
            type Value = Self;

            fn of(value: &Self) -> Self {
                *value
            }

            fn value(&self) -> Self {
                *self
            }
        })*
    };
}

as_it_is!(bool, f64, u32, usize);

/// A duration, as in `"250ms"` or `"1m 30s"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span(Duration);

impl Whole for Span {
    type Value = Duration;

    fn of(value: &Duration) -> Self {
        Self(*value)
    }

    fn value(&self) -> Duration {
        self.0
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a duration such as "250ms" or "1m 30s""#)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let span = humantime::parse_duration(text);
                span.map(Span).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// A setting, or a word in its place: `"off"`, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Switch<T, W = Off> {
    setting: Option<T>,
    word: PhantomData<W>,
}

/// What a file says in place of a setting.
pub(super) trait Word {
    const WORD: &'static str;
    /// What is expected, in an error.
    const EXPECTED: &'static str;
}

/// There is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Off {}

/// It follows from others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Auto {}

impl Word for Off {
    const WORD: &'static str = "off";
    const EXPECTED: &'static str = r#"a setting, or "off""#;
}

impl Word for Auto {
    const WORD: &'static str = "auto";
    const EXPECTED: &'static str = r#"a setting, or "auto""#;
}

impl<T, W> Switch<T, W> {
    const fn of(setting: Option<T>) -> Self {
        Self { setting, word: PhantomData }
    }
}

impl<T: Whole, W> Whole for Switch<T, W> {
    type Value = Option<T::Value>;

    fn of(value: &Self::Value) -> Self {
        Self::of(value.as_ref().map(T::of))
    }

    fn value(&self) -> Self::Value {
        self.setting.as_ref().map(T::value)
    }
}

impl<T: Serialize, W: Word> Serialize for Switch<T, W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.setting {
            None => serializer.serialize_str(W::WORD),
            Some(setting) => setting.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>, W: Word> Deserialize<'de> for Switch<T, W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOr<T, W>(PhantomData<(T, W)>);

        // Whatever it is but the word is left to the setting's own type, whose errors then say what it wants.
        impl<'de, T: Deserialize<'de>, W: Word> Visitor<'de> for WordOr<T, W> {
            type Value = Option<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(W::EXPECTED)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(Some)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(Some)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(Some)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(Some)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == W::WORD {
                    return Ok(None);
                }
                T::deserialize(StrDeserializer::new(text)).map(Some)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Some)
            }
        }

        deserializer.deserialize_any(WordOr(PhantomData::<(T, W)>)).map(Self::of)
    }
}
