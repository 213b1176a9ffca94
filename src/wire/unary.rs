//! gRPC calls of one message each way: flat protobuf messages, and the prefix in front of them.
//!
//! What is streamed is `grpc`'s.

use super::Malformed;
use super::protobuf::{PREFIX, put_varint, varint};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A message of texts.
#[derive(Debug, Default)]
pub struct Message(BytesMut);

impl Message {
    /// With a text in field `number` (1 to 15); an empty one is the same as none.
    pub fn text(mut self, number: u8, text: &str) -> Self {
        if !text.is_empty() {
            self.0.put_u8(number << 3 | 2);
            put_varint(&mut self.0, text.len() as u64);
            self.0.put_slice(text.as_bytes());
        }
        self
    }

    /// As it is sent, with its prefix.
    pub fn encode(self) -> Bytes {
        let mut wire = BytesMut::with_capacity(PREFIX + self.0.len());
        wire.put_u8(0);
        wire.put_u32(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        wire.put(self.0);
        wire.freeze()
    }
}

/// The fields of a message that came; of one that stands twice the last counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(u64, Value)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u64),
    Bytes(Bytes),
}

impl Fields {
    /// Reads one message behind its prefix, and nothing else.
    pub fn decode(mut wire: Bytes) -> Result<Self, Malformed> {
        if wire.is_empty() {
            return Err(Malformed("no gRPC message"));
        }
        if wire.get_u8() != 0 {
            return Err(Malformed("compressed gRPC message"));
        }
        let len = wire.try_get_u32().map_err(|_| CUT)? as usize;
        if len != wire.len() {
            return Err(if len > wire.len() { CUT } else { Malformed("more than one gRPC message") });
        }
        let mut fields = Vec::new();
        while !wire.is_empty() {
            let key = number(&mut wire)?;
            let value = match key & 7 {
                0 => Value::Number(number(&mut wire)?),
                2 => {
                    let len = usize::try_from(number(&mut wire)?).map_err(|_| CUT)?;
                    Value::Bytes(part(&mut wire, len)?)
                }
                kind @ (1 | 5) => {
                    part(&mut wire, if kind == 1 { 8 } else { 4 })?;
                    continue;
                }
                _ => return Err(Malformed("gRPC message that is no protobuf")),
            };
            fields.push((key >> 3, value));
        }
        Ok(Self(fields))
    }

    /// The text of that field; empty where there is none.
    pub fn text(&self, number: u64) -> Result<&str, Malformed> {
        match self.find(number) {
            None => Ok(""),
            Some(Value::Bytes(bytes)) => {
                std::str::from_utf8(bytes).map_err(|_| Malformed("text in a gRPC message that is not UTF-8"))
            }
            Some(Value::Number(_)) => Err(OTHER_KIND),
        }
    }

    /// Whether that field is true; without it, it is not.
    pub fn flag(&self, number: u64) -> Result<bool, Malformed> {
        match self.find(number) {
            None => Ok(false),
            Some(Value::Number(value)) => Ok(*value != 0),
            Some(Value::Bytes(_)) => Err(OTHER_KIND),
        }
    }

    fn find(&self, number: u64) -> Option<&Value> {
        self.0.iter().rev().find(|(known, _)| *known == number).map(|(_, value)| value)
    }
}

const CUT: Malformed = Malformed("gRPC message that is cut off");
const OTHER_KIND: Malformed = Malformed("field of a gRPC message that is of another kind");

fn part(wire: &mut Bytes, len: usize) -> Result<Bytes, Malformed> {
    if wire.len() < len { Err(CUT) } else { Ok(wire.split_to(len)) }
}

fn number(wire: &mut Bytes) -> Result<u64, Malformed> {
    let (number, len) = varint(wire)?.ok_or(CUT)?;
    wire.advance(len);
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_what_protobuf_makes_of_them() {
        let wire = Message::default().text(1, "dash:80").text(3, "").text(2, "s").encode();
        assert_eq!(wire, &b"\0\0\0\0\x0c\x0a\x07dash:80\x12\x01s"[..]);
    }

    #[test]
    fn fields_are_found_and_others_passed_over() {
        let wire = b"\0\0\0\0\x1c\x08\x01\x12\x02id\x1a\x01x\x25abcd\x29abcdefgh\x12\x03new";
        let fields = Fields::decode(Bytes::from_static(wire)).unwrap();
        assert_eq!((fields.flag(1), fields.text(2), fields.text(3)), (Ok(true), Ok("new"), Ok("x")));
        assert_eq!((fields.flag(9), fields.text(9)), (Ok(false), Ok("")));
        assert_eq!((fields.flag(2), fields.text(1)), (Err(OTHER_KIND), Err(OTHER_KIND)));
        assert_eq!(Fields::decode(Bytes::from_static(&[0; 5])), Ok(Fields::default()));
    }

    #[test]
    fn what_is_no_message_is_named() {
        let error = |wire: &'static [u8]| Fields::decode(Bytes::from_static(wire)).unwrap_err().0;
        assert_eq!(error(b""), "no gRPC message");
        assert_eq!(error(b"\x01\0\0\0\0"), "compressed gRPC message");
        assert_eq!(error(b"\0\0\0"), CUT.0);
        assert_eq!(error(b"\0\0\0\0\x02\x0a"), CUT.0);
        assert_eq!(error(b"\0\0\0\0\x02\x0a\x05"), CUT.0);
        assert_eq!(error(b"\0\0\0\0\0\0"), "more than one gRPC message");
        assert_eq!(error(b"\0\0\0\0\x01\x0c"), "gRPC message that is no protobuf");
        assert_eq!(
            error(b"\0\0\0\0\x0b\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            "gRPC message with an endless number"
        );
    }

    proptest! {
        #[test]
        fn texts_come_out_as_they_went_in(texts in prop::collection::vec(".{0,300}", 15)) {
            let message = (1..).zip(&texts).fold(Message::default(), |message, (n, text)| message.text(n, text));
            let fields = Fields::decode(message.encode()).unwrap();
            for (n, text) in (1..).zip(&texts) {
                prop_assert_eq!(fields.text(n), Ok(text.as_str()));
            }
        }

        #[test]
        fn hostile_bytes_are_refused_or_taken(mut wire in prop::collection::vec(any::<u8>(), 5..60)) {
            let len = u32::try_from(wire.len() - 5).unwrap();
            wire[..5].copy_from_slice(&[&[0], &len.to_be_bytes()[..]].concat());
            drop(Fields::decode(wire.into()));
        }
    }
}
