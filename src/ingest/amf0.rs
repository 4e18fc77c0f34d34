//! Reads AMF0 (Adobe AMF 0 specification, 2007), the encoding of RTMP's commands and metadata.
//!
//! The values are those of `rml_amf0`, but its reader is not used: it recurses at each level of nesting, so a message
//! of a few hundred kilobytes overflows the stack and ends the program.

use std::collections::HashMap;

use rml_rtmp::rml_amf0::Amf0Value;

/// The deepest nesting. Commands and metadata have two levels.
const MAX_DEPTH: u8 = 8;
/// The most values of a message. `connect` has about 15, metadata about 30.
const MAX_VALUES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message cannot be read as AMF0")]
pub(super) struct Amf0Error;

/// All values in `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Amf0Value>, Amf0Error> {
    let mut reader = Reader { rest: bytes, left: MAX_VALUES };
    let mut values = Vec::new();
    while !reader.rest.is_empty() {
        values.push(reader.value(MAX_DEPTH)?);
    }
    Ok(values)
}

/// The text of a value, if it is a text.
pub(super) fn text(value: Option<&Amf0Value>) -> Option<&str> {
    match value {
        Some(Amf0Value::Utf8String(text)) => Some(text),
        _ => None,
    }
}

/// A property of a value, if it is an object that has it.
pub(super) fn property<'a>(value: Option<&'a Amf0Value>, name: &str) -> Option<&'a Amf0Value> {
    match value {
        Some(Amf0Value::Object(properties)) => properties.get(name),
        _ => None,
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// How many values may still come.
    left: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: u8) -> Result<Amf0Value, Amf0Error> {
        self.left = self.left.checked_sub(1).ok_or(Amf0Error)?;
        let depth = depth.checked_sub(1).ok_or(Amf0Error)?;
        Ok(match self.bytes(1)?[0] {
            0 => Amf0Value::Number(f64::from_bits(self.number(8)?)),
            1 => Amf0Value::Boolean(self.number(1)? != 0),
            2 => Amf0Value::Utf8String(self.string(2)?),
            3 => self.object(depth)?,
            5 => Amf0Value::Null,
            // Undefined, unsupported.
            6 | 13 => Amf0Value::Undefined,
            // A reference to an earlier value; no client uses it.
            7 => {
                self.bytes(2)?;
                Amf0Value::Undefined
            }
            // An array by name. It states its length, which cannot be relied on.
            8 => {
                self.bytes(4)?;
                self.object(depth)?
            }
            10 => {
                let count = self.number(4)?;
                let values: Result<_, _> = (0..count).map(|_| self.value(depth)).collect();
                Amf0Value::StrictArray(values?)
            }
            // A date: milliseconds and a time zone.
            11 => {
                let date = f64::from_bits(self.number(8)?);
                self.bytes(2)?;
                Amf0Value::Number(date)
            }
            // A long string, XML.
            12 | 15 => Amf0Value::Utf8String(self.string(4)?),
            // An object with the name of its class.
            16 => {
                self.string(2)?;
                self.object(depth)?
            }
            _ => return Err(Amf0Error),
        })
    }

    fn object(&mut self, depth: u8) -> Result<Amf0Value, Amf0Error> {
        const END: u8 = 9;
        let mut properties = HashMap::new();
        loop {
            let name = self.string(2)?;
            if name.is_empty() && self.rest.first() == Some(&END) {
                self.bytes(1)?;
                return Ok(Amf0Value::Object(properties));
            }
            properties.insert(name, self.value(depth)?);
        }
    }

    fn string(&mut self, length_bytes: usize) -> Result<String, Amf0Error> {
        let length = self.number(length_bytes)?;
        let bytes = self.bytes(usize::try_from(length).map_err(|_| Amf0Error)?)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn number(&mut self, bytes: usize) -> Result<u64, Amf0Error> {
        Ok(self.bytes(bytes)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn bytes(&mut self, count: usize) -> Result<&[u8], Amf0Error> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Amf0Error)?;
        self.rest = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_another_implementation_wrote() {
        let inner = Amf0Value::Object([("a".to_owned(), Amf0Value::Null)].into());
        let object = Amf0Value::Object([("app".to_owned(), Amf0Value::Utf8String("live".into()))].into());
        let values = vec![
            Amf0Value::Utf8String("connect".into()),
            Amf0Value::Number(1.5),
            object,
            Amf0Value::StrictArray(vec![Amf0Value::Boolean(true), inner]),
        ];
        let bytes = rml_rtmp::rml_amf0::serialize(&values).unwrap();
        let read = read(&bytes).unwrap();
        assert_eq!(read, values);
        assert_eq!(text(read.first()), Some("connect"));
        assert_eq!(text(property(read.get(2), "app")), Some("live"));
    }

    #[test]
    fn refuses_deep_nesting_and_endless_arrays() {
        let deep: Vec<u8> = std::iter::repeat_n([3, 0, 1, b'a'], 100_000).flatten().collect();
        assert_eq!(read(&deep), Err(Amf0Error));
        let wide = [&[10, 0xff, 0xff, 0xff, 0xff][..], &[5; 5000]].concat();
        assert_eq!(read(&wide), Err(Amf0Error));
    }

    proptest! {
        #[test]
        fn bears_anything(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
