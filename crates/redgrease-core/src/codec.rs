//! The record codec: a compact, language-neutral, binary-safe encoding of values.
//!
//! One value is a tag byte and its payload; integers are LEB128 varints (zigzag where signed), lengths count
//! bytes or items, floats are eight bytes, little-endian. [`Token`] is the pull-parser's view: containers announce how many
//! values follow. Both the server ([`Value`]) and the Python extension (objects, without an intermediate
//! tree) build on [`Writer`] and [`Reader`], so there is one implementation of the format.
//!
//! Nothing here trusts its input: each length is compared with what is left, and depth is limited by [`DEPTH_MAX`].

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use thiserror::Error;

/// Version of the format; announced by clients with `RG.WITHCODEC <version>` and by workers in their handshake.
pub const CODEC_VERSION: u64 = 1;

/// The deepest nesting of containers that is read or written. A record counts as the dicts that it is read as, so that what
/// was read can be written and read again.
pub const DEPTH_MAX: usize = 200;

/// Why bytes are not a value of this codec.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The input ends inside a value.
    #[error("truncated at byte {at}: {needed} more bytes were announced, {left} are left")]
    Truncated {
        /// Offset of the missing bytes.
        at: usize,
        /// Bytes announced.
        needed: u64,
        /// Bytes left.
        left: usize,
    },
    /// A tag that no version up to [`CODEC_VERSION`] knows.
    #[error("unknown tag {tag} at byte {at}")]
    UnknownTag {
        /// The tag found.
        tag: u8,
        /// Its offset.
        at: usize,
    },
    /// A varint of more than 64 bits.
    #[error("integer longer than 64 bits at byte {at}")]
    IntegerOverflow {
        /// Its offset.
        at: usize,
    },
    /// Text that is not UTF-8.
    #[error("text at byte {at} is not UTF-8")]
    NotUtf8 {
        /// Its offset.
        at: usize,
    },
    /// Containers nested deeper than [`DEPTH_MAX`].
    #[error("values are nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// A field with a value outside its range.
    #[error("bad {what} {value} at byte {at}")]
    BadField {
        /// Name of the field.
        what: &'static str,
        /// Value seen.
        value: u64,
        /// Its offset.
        at: usize,
    },
}

/// Result of reading.
pub type Result<T> = core::result::Result<T, CodecError>;

macro_rules! tags {
    ($($name:ident = $value:literal),+ $(,)?) => { $(const $name: u8 = $value;)+ };
}
tags! {
    NONE = 0, FALSE = 1, TRUE = 2, INT = 3, BIG_INT = 4, FLOAT = 5, STR = 6, BYTES = 7, BYTE_ARRAY = 8,
    LIST = 9, TUPLE = 10, DICT = 11, SET = 12, FROZEN_SET = 13, PICKLE = 14, RAW = 15,
    KEY_RECORD = 16, KEY_ONLY_RECORD = 17, STREAM_RECORD = 18, COMPLEX = 19, ERROR = 20,
    OPAQUE = 21,
}

/// Type of a key as the KeysReader names it in a record's `type` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KeyType {
    /// The key does not exist.
    Empty = 0,
    /// A string.
    String = 1,
    /// A list.
    List = 2,
    /// A hash.
    Hash = 3,
    /// A set.
    Set = 4,
    /// A sorted set.
    ZSet = 5,
    /// A value of a module's type.
    Module = 6,
    /// A stream.
    Stream = 7,
    /// Anything that this version does not know.
    Unknown = 8,
}

impl KeyType {
    const ALL: [KeyType; 9] = [
        KeyType::Empty,
        KeyType::String,
        KeyType::List,
        KeyType::Hash,
        KeyType::Set,
        KeyType::ZSet,
        KeyType::Module,
        KeyType::Stream,
        KeyType::Unknown,
    ];

    /// Those that the `keyTypes` filter of a registration may name.
    pub const FILTERABLE: [KeyType; 8] = [
        KeyType::Empty,
        KeyType::String,
        KeyType::List,
        KeyType::Hash,
        KeyType::Set,
        KeyType::ZSet,
        KeyType::Module,
        KeyType::Stream,
    ];

    /// The name in records and in the `keyTypes` filter of a registration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KeyType::Empty => "empty",
            KeyType::String => "string",
            KeyType::List => "list",
            KeyType::Hash => "hash",
            KeyType::Set => "set",
            KeyType::ZSet => "zset",
            KeyType::Module => "module",
            KeyType::Stream => "stream",
            KeyType::Unknown => "unknown",
        }
    }

    /// The type that a filter means by that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<KeyType> {
        KeyType::FILTERABLE.into_iter().find(|kind| kind.name() == name)
    }

    fn from_byte(byte: u8, at: usize) -> Result<KeyType> {
        KeyType::ALL.get(usize::from(byte)).copied().ok_or(CodecError::BadField {
            what: "key type",
            value: u64::from(byte),
            at,
        })
    }
}

/// Writes values one after the other into a buffer.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    buf: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Writer {
        Writer::default()
    }

    /// A writer that appends to `buf`.
    #[must_use]
    pub fn append_to(buf: Vec<u8>) -> Writer {
        Writer { buf }
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.buf
    }

    /// What was written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Number of bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Forgets everything behind `len` (a value that turned out not to be writable).
    pub fn truncate(&mut self, len: usize) {
        self.buf.truncate(len);
    }

    /// A bare unsigned varint (no tag).
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buf.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.buf.push(value as u8);
    }

    /// A bare byte (no tag).
    pub fn byte(&mut self, byte: u8) {
        self.buf.push(byte);
    }

    /// A bare length and bytes (no tag).
    pub fn blob(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.buf.extend_from_slice(bytes);
    }

    /// Bytes as they are: encoded values from elsewhere.
    pub fn encoded(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.buf.reserve(bytes.len() + 10);
        self.buf.push(tag);
        self.blob(bytes);
    }

    fn counted(&mut self, tag: u8, count: usize) {
        self.buf.push(tag);
        self.varint(count as u64);
    }

    /// `None`.
    pub fn none(&mut self) {
        self.buf.push(NONE);
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.buf.push(if value { TRUE } else { FALSE });
    }

    /// An integer of 64 bits.
    pub fn int(&mut self, value: i64) {
        self.buf.push(INT);
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// An integer beyond 64 bits, as decimal digits with an optional minus sign.
    pub fn big_int(&mut self, decimal: &str) {
        self.tagged(BIG_INT, decimal.as_bytes());
    }

    /// A double.
    pub fn float(&mut self, value: f64) {
        self.buf.push(FLOAT);
        self.buf.extend_from_slice(&value.to_le_bytes());
    }

    /// A complex number.
    pub fn complex(&mut self, re: f64, im: f64) {
        self.buf.push(COMPLEX);
        self.buf.extend_from_slice(&re.to_le_bytes());
        self.buf.extend_from_slice(&im.to_le_bytes());
    }

    /// Text.
    pub fn str(&mut self, text: &str) {
        self.tagged(STR, text.as_bytes());
    }

    /// Bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.tagged(BYTES, bytes);
    }

    /// A mutable byte array.
    pub fn byte_array(&mut self, bytes: &[u8]) {
        self.tagged(BYTE_ARRAY, bytes);
    }

    /// A string of the database: text for the reader where it is UTF-8, bytes otherwise.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.tagged(RAW, bytes);
    }

    /// An opaque pickle.
    pub fn pickle(&mut self, bytes: &[u8]) {
        self.tagged(PICKLE, bytes);
    }

    /// The text of an error reply nested in a reply (a string for Python code).
    pub fn error(&mut self, text: &[u8]) {
        self.tagged(ERROR, text);
    }

    /// An object without a tag, when pickling was not requested: written as its `repr`.
    pub fn opaque(&mut self, repr: &str) {
        self.tagged(OPAQUE, repr.as_bytes());
    }

    /// A list; `count` values follow.
    pub fn list(&mut self, count: usize) {
        self.counted(LIST, count);
    }

    /// A tuple; `count` values follow.
    pub fn tuple(&mut self, count: usize) {
        self.counted(TUPLE, count);
    }

    /// A dictionary; `count` pairs of values follow.
    pub fn dict(&mut self, count: usize) {
        self.counted(DICT, count);
    }

    /// A set; `count` values follow.
    pub fn set(&mut self, count: usize) {
        self.counted(SET, count);
    }

    /// A frozen set; `count` values follow.
    pub fn frozen_set(&mut self, count: usize) {
        self.counted(FROZEN_SET, count);
    }

    /// Head of a KeysReader record; its value follows as one value.
    pub fn key_record(&mut self, key: &[u8], event: Option<&[u8]>, key_type: KeyType) {
        self.buf.reserve(key.len() + 16);
        self.buf.push(KEY_RECORD);
        self.blob(key);
        self.optional(event);
        self.buf.push(key_type as u8);
    }

    /// A KeysReader record without value (`readValue=False`).
    pub fn key_only_record(&mut self, key: &[u8], event: Option<&[u8]>) {
        self.buf.push(KEY_ONLY_RECORD);
        self.blob(key);
        self.optional(event);
    }

    /// Head of a StreamReader record; `count` pairs of values follow.
    pub fn stream_record(&mut self, key: &[u8], id: &[u8], count: usize) {
        self.buf.push(STREAM_RECORD);
        self.blob(key);
        self.blob(id);
        self.varint(count as u64);
    }

    /// A bare optional blob: 0 for none, else length + 1 and the bytes.
    pub fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.varint(0),
            Some(bytes) => {
                self.varint(bytes.len() as u64 + 1);
                self.buf.extend_from_slice(bytes);
            }
        }
    }

    /// A whole tree.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::None => self.none(),
            Value::Bool(b) => self.bool(*b),
            Value::Int(i) => self.int(*i),
            Value::BigInt(digits) => self.big_int(digits),
            Value::Float(f) => self.float(*f),
            Value::Complex(re, im) => self.complex(*re, *im),
            Value::Str(s) => self.str(s),
            Value::Bytes(b) => self.bytes(b),
            Value::ByteArray(b) => self.byte_array(b),
            Value::Raw(b) => self.raw(b),
            Value::Pickle(b) => self.pickle(b),
            Value::Error(b) => self.error(b),
            Value::Opaque(s) => self.opaque(s),
            Value::List(items) => {
                self.list(items.len());
                self.values(items);
            }
            Value::Tuple(items) => {
                self.tuple(items.len());
                self.values(items);
            }
            Value::Set(items) => {
                self.set(items.len());
                self.values(items);
            }
            Value::FrozenSet(items) => {
                self.frozen_set(items.len());
                self.values(items);
            }
            Value::Dict(pairs) => {
                self.dict(pairs.len());
                for (key, value) in pairs {
                    self.value(key);
                    self.value(value);
                }
            }
        }
    }

    fn values(&mut self, items: &[Value]) {
        for item in items {
            self.value(item);
        }
    }
}

/// One step of the pull parser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// `None`.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// Decimal digits of a longer integer.
    BigInt(&'a str),
    /// A double.
    Float(f64),
    /// A complex number: real and imaginary part.
    Complex(f64, f64),
    /// Text.
    Str(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A mutable byte array.
    ByteArray(&'a [u8]),
    /// A string of the database: text where it is UTF-8, bytes otherwise.
    Raw(&'a [u8]),
    /// An opaque pickle.
    Pickle(&'a [u8]),
    /// The text of a nested error reply.
    Error(&'a [u8]),
    /// The `repr` of an object without a tag, when pickling was not requested.
    Opaque(&'a str),
    /// So many values follow.
    List(usize),
    /// So many values follow.
    Tuple(usize),
    /// So many pairs of values follow.
    Dict(usize),
    /// So many values follow.
    Set(usize),
    /// So many values follow.
    FrozenSet(usize),
    /// A KeysReader record (`key`, `event`, `type`); its value follows as one value.
    KeyRecord {
        /// The key's name.
        key: &'a [u8],
        /// Name of the keyspace event, if there was one.
        event: Option<&'a [u8]>,
        /// The key's type.
        key_type: KeyType,
    },
    /// A KeysReader record without value (`key`, `event`).
    KeyOnlyRecord {
        /// The key's name.
        key: &'a [u8],
        /// Name of the keyspace event, if there was one.
        event: Option<&'a [u8]>,
    },
    /// A StreamReader record, with the number of pairs of values that follow.
    StreamRecord {
        /// The stream's name.
        key: &'a [u8],
        /// The entry's id.
        id: &'a [u8],
        /// Number of field/value pairs.
        count: usize,
    },
}

/// Reads values from bytes that may be hostile.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `buf`.
    #[must_use]
    pub fn new(buf: &'a [u8]) -> Reader<'a> {
        Reader { buf, at: 0 }
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at >= self.buf.len()
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        &self.buf[self.at..]
    }

    /// A bare byte.
    pub fn byte(&mut self) -> Result<u8> {
        let byte = *self.buf.get(self.at).ok_or(self.truncated(1))?;
        self.at += 1;
        Ok(byte)
    }

    /// A bare unsigned varint.
    pub fn varint(&mut self) -> Result<u64> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(CodecError::IntegerOverflow { at: start });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::IntegerOverflow { at: start })
    }

    /// A length and that number of bytes.
    pub fn blob(&mut self) -> Result<&'a [u8]> {
        let len = self.varint()?;
        self.take(len)
    }

    /// A bare optional blob.
    pub fn optional(&mut self) -> Result<Option<&'a [u8]>> {
        match self.varint()? {
            0 => Ok(None),
            len => self.take(len - 1).map(Some),
        }
    }

    /// A length and that number of bytes of UTF-8.
    pub fn text(&mut self) -> Result<&'a str> {
        let at = self.at;
        core::str::from_utf8(self.blob()?).map_err(|_| CodecError::NotUtf8 { at })
    }

    /// A count of items, each of which takes at least `size_min` bytes.
    pub fn count(&mut self, size_min: usize) -> Result<usize> {
        let count = self.varint()?;
        let needed = count.saturating_mul(size_min as u64);
        if needed > self.rest().len() as u64 {
            return Err(self.truncated(needed));
        }
        Ok(count as usize)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        if len > self.rest().len() as u64 {
            return Err(self.truncated(len));
        }
        let bytes = &self.buf[self.at..self.at + len as usize];
        self.at += len as usize;
        Ok(bytes)
    }

    fn truncated(&self, needed: u64) -> CodecError {
        CodecError::Truncated { at: self.at, needed, left: self.buf.len() - self.at }
    }

    fn float(&mut self) -> Result<f64> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(f64::from_le_bytes(bytes))
    }

    /// The next token.
    pub fn token(&mut self) -> Result<Token<'a>> {
        let at = self.at;
        let tag = self.byte()?;
        Ok(match tag {
            NONE => Token::None,
            FALSE => Token::Bool(false),
            TRUE => Token::Bool(true),
            INT => {
                let zigzag = self.varint()?;
                Token::Int(((zigzag >> 1) as i64) ^ -((zigzag & 1) as i64))
            }
            BIG_INT => Token::BigInt(self.text()?),
            FLOAT => Token::Float(self.float()?),
            COMPLEX => Token::Complex(self.float()?, self.float()?),
            STR => Token::Str(self.text()?),
            BYTES => Token::Bytes(self.blob()?),
            BYTE_ARRAY => Token::ByteArray(self.blob()?),
            RAW => Token::Raw(self.blob()?),
            PICKLE => Token::Pickle(self.blob()?),
            ERROR => Token::Error(self.blob()?),
            OPAQUE => Token::Opaque(self.text()?),
            LIST => Token::List(self.count(1)?),
            TUPLE => Token::Tuple(self.count(1)?),
            DICT => Token::Dict(self.count(2)?),
            SET => Token::Set(self.count(1)?),
            FROZEN_SET => Token::FrozenSet(self.count(1)?),
            KEY_RECORD => {
                let key = self.blob()?;
                let event = self.optional()?;
                let type_at = self.at;
                let key_type = KeyType::from_byte(self.byte()?, type_at)?;
                Token::KeyRecord { key, event, key_type }
            }
            KEY_ONLY_RECORD => Token::KeyOnlyRecord { key: self.blob()?, event: self.optional()? },
            STREAM_RECORD => Token::StreamRecord { key: self.blob()?, id: self.blob()?, count: self.count(2)? },
            tag => return Err(CodecError::UnknownTag { tag, at }),
        })
    }

    /// The next whole value as a tree.
    pub fn value(&mut self) -> Result<Value> {
        self.value_at(0)
    }

    /// The bytes of the next whole value, undecoded.
    pub fn encoded_value(&mut self) -> Result<&'a [u8]> {
        let start = self.at;
        self.skip()?;
        Ok(&self.buf[start..self.at])
    }

    /// Steps over the next whole value.
    pub fn skip(&mut self) -> Result<()> {
        let mut left = vec![1usize];
        while let Some(count) = left.last_mut() {
            if *count == 0 {
                left.pop();
                continue;
            }
            *count -= 1;
            let (levels, children) = match self.token()? {
                Token::List(n) | Token::Tuple(n) | Token::Set(n) | Token::FrozenSet(n) => (usize::from(n > 0), n),
                Token::Dict(n) => (usize::from(n > 0), 2 * n),
                Token::KeyRecord { .. } => (1, 1),
                Token::KeyOnlyRecord { .. } => (1, 0),
                Token::StreamRecord { count: n, .. } => (1 + usize::from(n > 0), 2 * n),
                _ => (0, 0),
            };
            if left.len() + levels > DEPTH_MAX + 1 {
                return Err(CodecError::TooDeep);
            }
            if children > 0 {
                // A level without values of its own counts, too.
                left.resize(left.len() + levels - 1, 0);
                left.push(children);
            }
        }
        Ok(())
    }

    fn value_at(&mut self, depth: usize) -> Result<Value> {
        if depth > DEPTH_MAX {
            return Err(CodecError::TooDeep);
        }
        Ok(match self.token()? {
            Token::None => Value::None,
            Token::Bool(b) => Value::Bool(b),
            Token::Int(i) => Value::Int(i),
            Token::BigInt(digits) => Value::BigInt(digits.to_owned()),
            Token::Float(f) => Value::Float(f),
            Token::Complex(re, im) => Value::Complex(re, im),
            Token::Str(s) => Value::Str(s.to_owned()),
            Token::Bytes(b) => Value::Bytes(b.to_vec()),
            Token::ByteArray(b) => Value::ByteArray(b.to_vec()),
            Token::Raw(b) => Value::Raw(b.to_vec()),
            Token::Pickle(b) => Value::Pickle(b.to_vec()),
            Token::Error(b) => Value::Error(b.to_vec()),
            Token::Opaque(s) => Value::Opaque(s.to_owned()),
            Token::List(n) => Value::List(self.values_at(n, depth)?),
            Token::Tuple(n) => Value::Tuple(self.values_at(n, depth)?),
            Token::Set(n) => Value::Set(self.values_at(n, depth)?),
            Token::FrozenSet(n) => Value::FrozenSet(self.values_at(n, depth)?),
            Token::Dict(n) => Value::Dict(self.pairs_at(n, depth)?),
            Token::KeyRecord { key, event, key_type } => {
                let value = self.value_at(depth + 1)?;
                Value::Dict(vec![
                    (Value::text("key"), Value::Raw(key.to_vec())),
                    (Value::text("value"), value),
                    (Value::text("type"), Value::text(key_type.name())),
                    (Value::text("event"), event.map_or(Value::None, |event| Value::Raw(event.to_vec()))),
                ])
            }
            Token::KeyOnlyRecord { key, event } => {
                deeper(depth)?;
                Value::Dict(vec![
                    (Value::text("key"), Value::Raw(key.to_vec())),
                    (Value::text("event"), event.map_or(Value::None, |event| Value::Raw(event.to_vec()))),
                ])
            }
            Token::StreamRecord { key, id, count } => {
                let fields = self.pairs_at(count, deeper(depth)?)?;
                Value::Dict(vec![
                    (Value::text("key"), Value::Raw(key.to_vec())),
                    (Value::text("id"), Value::Raw(id.to_vec())),
                    (Value::text("value"), Value::Dict(fields)),
                ])
            }
        })
    }

    fn values_at(&mut self, count: usize, depth: usize) -> Result<Vec<Value>> {
        (0..count).map(|_| self.value_at(depth + 1)).collect()
    }

    fn pairs_at(&mut self, count: usize, depth: usize) -> Result<Vec<(Value, Value)>> {
        (0..count).map(|_| Ok((self.value_at(depth + 1)?, self.value_at(depth + 1)?))).collect()
    }
}

/// The depth of what a container at `depth` holds.
fn deeper(depth: usize) -> Result<usize> {
    if depth < DEPTH_MAX { Ok(depth + 1) } else { Err(CodecError::TooDeep) }
}

/// A decoded value, for code that is not Python.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// Decimal digits of a longer integer.
    BigInt(String),
    /// A double.
    Float(f64),
    /// A complex number: real and imaginary part.
    Complex(f64, f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A mutable byte array.
    ByteArray(Vec<u8>),
    /// A string of the database: text where it is UTF-8, bytes otherwise.
    Raw(Vec<u8>),
    /// An opaque pickle.
    Pickle(Vec<u8>),
    /// The text of a nested error reply.
    Error(Vec<u8>),
    /// The `repr` of an object without a tag, when pickling was not requested.
    Opaque(String),
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A set, in the order of its sender.
    Set(Vec<Value>),
    /// A frozen set, in the order of its sender.
    FrozenSet(Vec<Value>),
    /// A dictionary, in the order of its sender.
    Dict(Vec<(Value, Value)>),
}

impl Value {
    /// Text from a literal or a string.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Value {
        Value::Str(text.into())
    }

    /// The bytes of a text or byte value.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Str(text) => Some(text.as_bytes()),
            Value::Bytes(bytes) | Value::ByteArray(bytes) | Value::Raw(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The value of a dict under that text, the first if there are several.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let Value::Dict(pairs) = self else { return None };
        pairs.iter().find(|(key, _)| matches!(key, Value::Str(text) if text == name)).map(|(_, value)| value)
    }

    /// The encoded form of this value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.value(self);
        writer.into_bytes()
    }

    /// Reads exactly one value.
    pub fn decode(bytes: &[u8]) -> Result<Value> {
        let mut reader = Reader::new(bytes);
        let value = reader.value()?;
        if !reader.is_empty() {
            return Err(CodecError::BadField {
                what: "trailing bytes",
                value: reader.rest().len() as u64,
                at: reader.position(),
            });
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::None),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            "-?[1-9][0-9]{20,40}".prop_map(Value::BigInt),
            any::<i32>().prop_map(|i| Value::Float(f64::from(i) / 7.0)),
            any::<String>().prop_map(Value::Str),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            any::<Vec<u8>>().prop_map(Value::Raw),
            any::<Vec<u8>>().prop_map(Value::Pickle),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::List),
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Tuple),
                prop::collection::vec((inner.clone(), inner), 0..8).prop_map(Value::Dict),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_survives_the_round_trip(value in any_value()) {
            prop_assert_eq!(Value::decode(&value.encode()).unwrap(), value);
        }

        #[test]
        fn skipping_a_value_consumes_exactly_its_bytes(value in any_value(), tail in any::<Vec<u8>>()) {
            let mut bytes = value.encode();
            let len = bytes.len();
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(Reader::new(&bytes).encoded_value().unwrap().len(), len);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = Value::decode(&bytes);
            let _ = Reader::new(&bytes).skip();
        }

        #[test]
        fn every_truncation_is_noticed(value in any_value()) {
            let bytes = value.encode();
            for len in 0..bytes.len() {
                prop_assert!(Value::decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn the_bytes_of_each_tag_are_golden() {
        let table: [(Value, &[u8]); 10] = [
            (Value::None, &[0]),
            (Value::Bool(true), &[2]),
            (Value::Int(-1), &[3, 1]),
            (Value::Int(300), &[3, 0xd8, 4]),
            (Value::Float(1.0), &[5, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
            (Value::text("é"), &[6, 2, 0xc3, 0xa9]),
            (Value::Bytes(vec![0, 255]), &[7, 2, 0, 255]),
            (Value::List(vec![Value::None]), &[9, 1, 0]),
            (Value::Dict(vec![(Value::Int(0), Value::None)]), &[11, 1, 3, 0, 0]),
            (Value::Raw(b"k".to_vec()), &[15, 1, b'k']),
        ];
        for (value, bytes) in table {
            assert_eq!(value.encode(), bytes, "{value:?}");
        }
    }

    #[test]
    fn a_count_beyond_the_input_is_refused_before_anything_is_allocated() {
        let mut writer = Writer::new();
        writer.list(usize::MAX >> 1);
        assert!(matches!(Value::decode(writer.as_bytes()), Err(CodecError::Truncated { .. })));
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let mut bytes = Vec::new();
        for _ in 0..=DEPTH_MAX + 1 {
            bytes.extend_from_slice(&[LIST, 1]);
        }
        bytes.push(NONE);
        assert_eq!(Value::decode(&bytes), Err(CodecError::TooDeep));
        assert_eq!(Reader::new(&bytes).skip(), Err(CodecError::TooDeep));
    }

    #[test]
    fn records_at_the_limit_of_nesting_can_be_written_and_read_again_or_are_refused() {
        type Write = fn(&mut Writer);
        let key_record: Write = |writer| {
            writer.key_record(b"k", None, KeyType::String);
            writer.none();
        };
        let stream_record: Write = |writer| {
            writer.stream_record(b"s", b"1-1", 1);
            writer.none();
            writer.none();
        };
        let table: [(Write, usize); 4] = [
            (key_record, 1),
            (|writer| writer.key_only_record(b"k", None), 1),
            (|writer| writer.stream_record(b"s", b"1-1", 0), 1),
            (stream_record, 2),
        ];
        for (record, levels) in table {
            for lists in DEPTH_MAX - 3..=DEPTH_MAX {
                let mut writer = Writer::new();
                (0..lists).for_each(|_| writer.list(1));
                record(&mut writer);
                let read = Value::decode(writer.as_bytes());
                assert_eq!(read.is_ok(), lists + levels <= DEPTH_MAX, "{lists} lists, {levels} levels");
                assert_eq!(Reader::new(writer.as_bytes()).skip(), read.as_ref().map(drop).map_err(Clone::clone));
                if let Ok(value) = read {
                    assert_eq!(Value::decode(&value.encode()), Ok(value));
                }
            }
        }
    }

    #[test]
    fn a_keys_record_reads_as_the_documented_dictionary() {
        let mut writer = Writer::new();
        writer.key_record(b"k", None, KeyType::Stream);
        writer.none();
        let Value::Dict(pairs) = Value::decode(writer.as_bytes()).unwrap() else { panic!("not a dict") };
        let names: Vec<_> = pairs.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, ["key", "value", "type", "event"].map(Value::text));
        assert_eq!(pairs[2].1, Value::text("stream"));
    }
}
