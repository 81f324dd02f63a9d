//! Metrics on wire and disk: each number as the shortest CBOR that holds it exactly (integer, single or double).
//!
//! What comes in is checked, for it comes from a network or a disk: numbers are finite, labels and units within their
//! bounds, ranges the right way round. The surprise: numbers are compared by their bits, so minus zero stays minus zero.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::{LABEL_LIMIT, Threshold, UNIT_LIMIT};
use crate::range::Range;

pub(super) mod number {
    use super::{DecodeError, Decoder, EncodeError, Encoder, Write};

    /// Integers up to here are exact in a double.
    const EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

    #[expect(clippy::cast_possible_truncation, reason = "each cast is checked to be exact")]
    pub(crate) fn encode<C, W: Write>(value: &f64, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        let value = *value;
        if value.fract() == 0.0 && value.abs() <= EXACT_INTEGER && !(value == 0.0 && value.is_sign_negative()) {
            e.i64(value as i64)?.ok()
        } else if f64::from(value as f32).to_bits() == value.to_bits() {
            e.f32(value as f32)?.ok()
        } else {
            e.f64(value)?.ok()
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "written only up to 2^53; a foreign greater one is rounded")]
    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<f64, DecodeError> {
        use minicbor::data::Type;
        let at = d.position();
        let value = match d.datatype()? {
            Type::F16 | Type::F32 | Type::F64 => d.f64()?,
            _ => d.i64()? as f64,
        };
        if value.is_finite() { Ok(value) } else { Err(DecodeError::message("a number must be finite").at(at)) }
    }
}

pub(super) mod optional_number {
    use super::{DecodeError, Decoder, EncodeError, Encoder, Write, number};

    pub(crate) fn encode<C, W: Write>(
        value: &Option<f64>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match value {
            Some(value) => number::encode(value, e, ctx),
            None => e.null()?.ok(),
        }
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Option<f64>, DecodeError> {
        if d.datatype()? == minicbor::data::Type::Null {
            d.null()?;
            return Ok(None);
        }
        number::decode(d, ctx).map(Some)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape minicbor asks for: the value of a missing field")]
    pub(crate) fn nil() -> Option<Option<f64>> {
        Some(None)
    }

    pub(crate) fn is_nil(value: &Option<f64>) -> bool {
        value.is_none()
    }
}

fn bounded<'b>(d: &mut Decoder<'b>, limit: usize, what: &'static str) -> Result<&'b str, DecodeError> {
    let at = d.position();
    let text = d.str()?;
    if text.len() > limit { Err(DecodeError::message(what).at(at)) } else { Ok(text) }
}

pub(super) fn label<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, DecodeError> {
    let label = bounded(d, LABEL_LIMIT, "the label of a metric is too long")?;
    if label.is_empty() { Err(DecodeError::message("the label of a metric is empty")) } else { Ok(label.to_owned()) }
}

pub(super) fn unit<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, DecodeError> {
    bounded(d, UNIT_LIMIT, "the unit of a metric is too long").map(str::to_owned)
}

// A number is a number; a range an array of start, end (null: unbounded) and the sense of `@`.
impl<C> Encode<C> for Threshold {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        match self {
            Self::Number(value) => number::encode(value, e, ctx),
            Self::Range(range) => {
                e.array(3)?;
                optional_number::encode(&Some(range.start()).filter(|start| start.is_finite()), e, ctx)?;
                optional_number::encode(&Some(range.end()).filter(|end| end.is_finite()), e, ctx)?;
                e.bool(range.inside())?.ok()
            }
        }
    }
}

impl<'b, C> Decode<'b, C> for Threshold {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let at = d.position();
        if d.datatype()? != minicbor::data::Type::Array {
            return number::decode(d, ctx).map(Self::Number);
        }
        if d.array()? != Some(3) {
            return Err(DecodeError::message("a range has three fields").at(at));
        }
        let start = optional_number::decode(d, ctx)?.unwrap_or(f64::NEG_INFINITY);
        let end = optional_number::decode(d, ctx)?.unwrap_or(f64::INFINITY);
        let inside = d.bool()?;
        Range::new(start, end, inside).map(Self::Range).map_err(|error| DecodeError::message(error).at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perfdata::{Metric, parse};

    #[test]
    fn metrics_keep_their_numbers_exactly_on_wire_and_disk() {
        let text = "a=0 b=-0 c=1.5 d=0.1 e=123456789012 f=1e300;~:5;@1:2;-7.25;1e18 g=9007199254740993 h=5;10:;@:0.1";
        let metrics = parse(text).metrics;
        let bytes = minicbor::to_vec(&metrics).unwrap();
        let back: Vec<Metric> = minicbor::decode(&bytes).unwrap();
        assert_eq!(back, metrics);
        assert!(back[1].value.is_sign_negative());
        let small = minicbor::to_vec(&parse("a=1").metrics[0]).unwrap();
        assert_eq!(small, [0x83, 0x61, b'a', 0x01, 0x60], "trailing absent fields cost nothing");
    }

    #[test]
    fn hostile_metrics_are_refused() {
        fn metric(fields: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Result<Metric, DecodeError> {
            let mut bytes = Vec::new();
            fields(&mut Encoder::new(&mut bytes));
            minicbor::decode(&bytes)
        }
        let with_label = |label: &str| {
            let label = label.to_owned();
            metric(move |e| {
                e.array(3).unwrap().str(&label).unwrap().u8(1).unwrap().str("").unwrap();
            })
        };
        assert!(with_label("x").is_ok());
        assert!(with_label("").is_err());
        assert!(with_label(&"x".repeat(LABEL_LIMIT + 1)).is_err());
        for value in [f64::NAN, f64::INFINITY] {
            let decoded = metric(|e| {
                e.array(3).unwrap().str("x").unwrap().f64(value).unwrap().str("").unwrap();
            });
            assert!(decoded.is_err());
        }
        let reversed = metric(|e| {
            e.array(4).unwrap().str("x").unwrap().u8(1).unwrap().str("").unwrap();
            e.array(3).unwrap().u8(2).unwrap().u8(1).unwrap().bool(false).unwrap();
        });
        assert!(reversed.is_err(), "a range from 2 to 1");
    }
}
