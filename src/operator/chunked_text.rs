//! A response body in chunks. One string of megabytes would be copied repeatedly while it grows, and much text is written in
//! parts, each when the one before was sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The capacity of a chunk in bytes. A longer text that is written at once gets a chunk of its own length.
const CHUNK_BYTES: usize = 64 * 1024;

/// Writes the next part. Returns whether there is another one.
pub(super) type NextPart = Box<dyn FnMut(&mut ChunkedText) -> bool + Send>;

/// A response body in chunks.
#[derive(Default)]
pub(super) struct ChunkedText {
    chunks: VecDeque<String>,
    /// What is not written yet.
    next: Option<NextPart>,
}

impl ChunkedText {
    /// A text that is written in parts.
    pub(super) fn in_parts(next: NextPart) -> Self {
        ChunkedText { chunks: VecDeque::new(), next: Some(next) }
    }
}

impl From<String> for ChunkedText {
    fn from(text: String) -> Self {
        ChunkedText { chunks: VecDeque::from([text]), next: None }
    }
}

impl fmt::Write for ChunkedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.chunks.back_mut().filter(|chunk| chunk.len() + text.len() <= chunk.capacity()) {
            Some(chunk) => chunk.push_str(text),
            None => {
                let mut chunk = String::with_capacity(CHUNK_BYTES.max(text.len()));
                chunk.push_str(text);
                self.chunks.push_back(chunk);
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
        while self.chunks.is_empty()
            && let Some(mut next) = self.next.take()
        {
            if next(&mut self) {
                self.next = Some(next);
            }
        }
        Poll::Ready(self.chunks.pop_front().map(|chunk| Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && self.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let written = self.chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let mut size = SizeHint::new();
        size.set_lower(written);
        if self.next.is_none() {
            size.set_exact(written);
        }
        size
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
        assert_eq!((text.chunks.len(), text.size_hint().exact()), (3, Some(expected.len() as u64)));
        assert_eq!(text.collect().await.unwrap().to_bytes(), expected);
    }

    #[tokio::test]
    async fn chunked_text_in_parts_has_one_of_them_in_memory() {
        let mut parts = [Some("a"), None, Some("b")].into_iter();
        let mut text = ChunkedText::in_parts(Box::new(move |text| {
            let part = parts.next().unwrap();
            part.iter().for_each(|part| text.write_str(&part.repeat(CHUNK_BYTES)).unwrap());
            parts.len() > 0
        }));
        assert!(!text.is_end_stream() && text.size_hint().exact().is_none());
        for (part, is_last) in [("a", false), ("b", true)] {
            let frame = text.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), part.repeat(CHUNK_BYTES));
            assert!(text.chunks.is_empty() && text.is_end_stream() == is_last, "{part}");
        }
        assert!(text.frame().await.is_none());
    }
}
