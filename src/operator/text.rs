//! A body of text in pieces: megabytes in one piece would be copied again and again as they grow.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// How long a piece is, in bytes. What is written at once is not taken apart.
const PIECE: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Text(VecDeque<String>);

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text(VecDeque::from([text]))
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.0.back_mut().filter(|piece| piece.len() + text.len() <= piece.capacity()) {
            Some(piece) => piece.push_str(text),
            None => {
                let mut piece = String::with_capacity(PIECE.max(text.len()));
                piece.push_str(text);
                self.0.push_back(piece);
            }
        }
        Ok(())
    }
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_come_out_as_they_went_in() {
        let mut text = Text::default();
        let mut expected = String::new();
        for part in ["a".to_owned(), "b".repeat(PIECE - 1), "c".repeat(2 * PIECE), String::new(), "d".into()]
        {
            text.write_str(&part).unwrap();
            expected += &part;
        }
        assert_eq!((text.0.len(), text.size_hint().exact()), (3, Some(expected.len() as u64)));
        assert_eq!(text.collect().await.unwrap().to_bytes(), expected);
    }
}
