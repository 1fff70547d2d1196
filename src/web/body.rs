//! Bodies of responses and requests.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
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

/// The whole body of a request; `None` if it is longer than `most` bytes or breaks off.
pub(crate) async fn collect<B: http_body::Body>(body: B, most: usize) -> Option<Vec<u8>> {
    let mut body = pin!(body);
    let mut whole = Vec::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        // Trailers are of no interest.
        let Ok(mut data) = frame.ok()?.into_data() else { continue };
        while data.has_remaining() {
            let chunk = data.chunk();
            if whole.len() + chunk.len() > most {
                return None;
            }
            whole.extend_from_slice(chunk);
            let read = chunk.len();
            data.advance(read);
        }
    }
    Some(whole)
}
