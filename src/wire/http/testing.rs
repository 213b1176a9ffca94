//! Heads for tests.

use super::{HeadReader, Limits, ReplyHead, RequestHead};
use bytes::BytesMut;

/// The request head that a text is.
pub(crate) fn request(text: &str) -> RequestHead {
    let head = HeadReader::default().request(&mut BytesMut::from(text), &Limits::default());
    head.expect("request").expect("whole head")
}

/// The reply head that a text is, in answer to `request`.
pub(crate) fn reply(text: &str, request: &RequestHead) -> ReplyHead {
    let head = HeadReader::default().reply(&mut BytesMut::from(text), &Limits::default(), request);
    head.expect("reply").expect("whole head")
}
