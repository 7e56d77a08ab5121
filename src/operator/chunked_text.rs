//! A response body in chunks. One string of megabytes would be copied repeatedly while it grows.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The capacity of a chunk in bytes. A longer text that is written at once gets a chunk of its own length.
const CHUNK_BYTES: usize = 64 * 1024;

/// A response body in chunks.
#[derive(Debug, Default)]
pub(super) struct ChunkedText(VecDeque<String>);

impl From<String> for ChunkedText {
    fn from(text: String) -> Self {
        ChunkedText(VecDeque::from([text]))
    }
}

impl fmt::Write for ChunkedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.0.back_mut().filter(|chunk| chunk.len() + text.len() <= chunk.capacity()) {
            Some(chunk) => chunk.push_str(text),
            None => {
                let mut chunk = String::with_capacity(CHUNK_BYTES.max(text.len()));
                chunk.push_str(text);
                self.0.push_back(chunk);
            }
        }
        Ok(())
    }
}

impl Body for ChunkedText {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|chunk| chunk.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn chunked_text_body_is_the_written_text() {
        let mut text = ChunkedText::default();
        let mut expected = String::new();
        for part in [
            "a".to_owned(),
            "b".repeat(CHUNK_BYTES - 1),
            "c".repeat(2 * CHUNK_BYTES),
            String::new(),
            "d".into(),
        ] {
            text.write_str(&part).unwrap();
            expected += &part;
        }
        assert_eq!((text.0.len(), text.size_hint().exact()), (3, Some(expected.len() as u64)));
        assert_eq!(text.collect().await.unwrap().to_bytes(), expected);
    }
}
