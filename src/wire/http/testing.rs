//! Heads for tests.

use super::{HeadReader, Limits, RequestHead};
use bytes::BytesMut;

/// The request head that a text is.
pub(crate) fn request(text: &str) -> RequestHead {
    let head = HeadReader::default().request(&mut BytesMut::from(text), &Limits::default());
    head.expect("request").expect("whole head")
}
