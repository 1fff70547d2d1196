//! Bodies of responses and requests.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::clients::Reader;

/// The body of a response: a text, or a stream that goes on until either side ends it.
pub struct Body(Kind);

enum Kind {
    Text(Option<Bytes>),
    Stream(Reader),
}

impl From<Bytes> for Body {
    fn from(text: Bytes) -> Self {
        Self(Kind::Text(Some(text).filter(|text| !text.is_empty())))
    }
}

impl From<Reader> for Body {
    fn from(reader: Reader) -> Self {
        Self(Kind::Stream(reader))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut self.get_mut().0 {
            Kind::Text(text) => text.take(),
            Kind::Stream(reader) => ready!(reader.poll_next(cx)),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Text(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}
