//! The `tojson` filter as transformers has it: Python's `json.dumps` with `ensure_ascii=False`.
//!
//! Owns the spacing (`", "` and `": "`, or one item a line with `indent`) because models were trained on exactly these bytes.
//! Refuses HTML escapes, which minijinja's own filter adds.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

use super::bounded::Bounded;
use crate::gateway::limits;

/// `value | tojson(indent=…, ensure_ascii=…, sort_keys=…, separators=…)`.
pub(crate) fn tojson(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let layout = || Layout::new(indent, separators.as_deref(), ascii);
    // Written once as it is, even where it is then sorted: that has no bound of its own.
    let written = dump(value, layout())?;
    let written = if sorted { dump(&sorted_value(value)?, layout())? } else { written };
    Ok(Value::from(written))
}

/// Through a map that keeps its keys in order.
fn sorted_value(value: &Value) -> Result<serde_json::Value, Error> {
    serde_json::to_value(value).map_err(invalid)
}

fn dump(value: &impl Serialize, layout: Layout) -> Result<String, Error> {
    let mut out = Bounded::default();
    let done = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, layout));
    if out.full {
        return Err(Error::new(
            ErrorKind::OutOfFuel,
            "this value is too large or too deep to be written as JSON",
        ));
    }
    done.map_err(invalid)?;
    String::from_utf8(out.bytes).map_err(invalid)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::BadSerialization, "this value cannot be written as JSON").with_source(error)
}

const SPACES: &[u8] = &[b' '; 256];

/// Where Python puts spaces and line ends.
struct Layout {
    indent: Option<usize>,
    between_items: String,
    after_key: String,
    ascii: bool,
    depth: usize,
    /// Empty lists and maps stay on one line, in Python too.
    filled: bool,
}

impl Layout {
    fn new(indent: Option<usize>, separators: Option<&[String]>, ascii: bool) -> Self {
        // With an indent Python leaves no space before the line end.
        let (items, keys) = match separators {
            Some([items, keys]) => (items.clone(), keys.clone()),
            Some(_) | None => ((if indent.is_some() { "," } else { ", " }).to_owned(), ": ".to_owned()),
        };
        Self { indent, between_items: items, after_key: keys, ascii, depth: 0, filled: false }
    }

    fn open<W: ?Sized + io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        if self.depth > limits::TEMPLATE_JSON_DEPTH {
            // Values that share their parts are as deep as a template likes, and this recurses.
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.filled = false;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.line(out)?;
        }
        self.filled = true;
        out.write_all(bracket)
    }

    fn item<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.between_items.as_bytes())?;
        }
        self.line(out)
    }

    fn line<W: ?Sized + io::Write>(&self, out: &mut W) -> io::Result<()> {
        let Some(indent) = self.indent else { return Ok(()) };
        out.write_all(b"\n")?;
        // In pieces: a template may ask for as many as it likes, until there is no room.
        let mut left = indent.saturating_mul(self.depth);
        while left > 0 {
            let piece = SPACES.get(..left).unwrap_or(SPACES);
            out.write_all(piece)?;
            left -= piece.len();
        }
        Ok(())
    }
}

impl Formatter for Layout {
    fn begin_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.after_key.as_bytes())
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    /// As Python's `repr`: an exponent below 1e-4 and from 1e16 on, with its sign and two digits.
    fn write_f64<W: ?Sized + io::Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        let scientific = format!("{value:e}");
        match scientific.split_once('e').map(|(digits, exponent)| (digits, exponent.parse::<i32>())) {
            Some((digits, Ok(exponent))) if !(-4..16).contains(&exponent) => {
                let sign = if exponent < 0 { '-' } else { '+' };
                write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs())
            }
            Some(_) | None => write!(out, "{value:?}"),
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.ascii {
            return out.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for char in fragment.chars() {
            if (' '..='~').contains(&char) {
                write!(out, "{char}")?;
            } else {
                char.encode_utf16(&mut units).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => out.write_all(b"\\\""),
            CharEscape::ReverseSolidus => out.write_all(b"\\\\"),
            CharEscape::Solidus => out.write_all(b"/"),
            CharEscape::Backspace => out.write_all(b"\\b"),
            CharEscape::FormFeed => out.write_all(b"\\f"),
            CharEscape::LineFeed => out.write_all(b"\\n"),
            CharEscape::CarriageReturn => out.write_all(b"\\r"),
            CharEscape::Tab => out.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(out, "\\u{byte:04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `json.dumps(…, ensure_ascii=False)`, the same with `True`, and with `indent=2`; each line was made by Python.
    const DUMPS: [(&str, &str, &str, &str); 19] = [
        ("null", "null", "null", "null"),
        ("true", "true", "true", "true"),
        ("0", "0", "0", "0"),
        ("-1", "-1", "-1", "-1"),
        ("1.5", "1.5", "1.5", "1.5"),
        ("1.0", "1.0", "1.0", "1.0"),
        ("1e15", "1000000000000000.0", "1000000000000000.0", "1000000000000000.0"),
        ("1e16", "1e+16", "1e+16", "1e+16"),
        ("-2.5e300", "-2.5e+300", "-2.5e+300", "-2.5e+300"),
        ("0.0001", "0.0001", "0.0001", "0.0001"),
        ("0.00001", "1e-05", "1e-05", "1e-05"),
        ("123456789012345678", "123456789012345678", "123456789012345678", "123456789012345678"),
        ("\"\"", "\"\"", "\"\"", "\"\""),
        (
            "\"é\u{7f}\\u0001\\t/\\\\\\\"\u{2028}😀\"",
            "\"é\u{7f}\\u0001\\t/\\\\\\\"\u{2028}😀\"",
            "\"\\u00e9\\u007f\\u0001\\t/\\\\\\\"\\u2028\\ud83d\\ude00\"",
            "\"é\u{7f}\\u0001\\t/\\\\\\\"\u{2028}😀\"",
        ),
        ("[]", "[]", "[]", "[]"),
        ("{}", "{}", "{}", "{}"),
        ("[[]]", "[[]]", "[[]]", "[\n  []\n]"),
        ("{\"a\":{}}", "{\"a\": {}}", "{\"a\": {}}", "{\n  \"a\": {}\n}"),
        (
            "[1,[2,{\"b\":[]}]]",
            "[1, [2, {\"b\": []}]]",
            "[1, [2, {\"b\": []}]]",
            "[\n  1,\n  [\n    2,\n    {\n      \"b\": []\n    }\n  ]\n]",
        ),
    ];

    fn dumped(json: &str, layout: Layout) -> String {
        let value: Value = serde_json::from_str(json).expect("JSON");
        dump(&value, layout).expect("dumps")
    }

    #[test]
    fn every_value_is_dumped_as_python_dumps_it() {
        for (json, plain, ascii, indented) in DUMPS {
            assert_eq!(dumped(json, Layout::new(None, None, false)), plain);
            assert_eq!(dumped(json, Layout::new(None, None, true)), ascii);
            assert_eq!(dumped(json, Layout::new(Some(2), None, false)), indented);
        }
    }

    #[test]
    fn keys_stay_in_the_order_in_which_they_were_given_or_are_sorted() {
        let value: Value = serde_json::from_str("{\"z\":1,\"a\":{\"y\":1,\"b\":2}}").expect("JSON");
        let plain = || Layout::new(None, None, false);
        assert_eq!(dump(&value, plain()).expect("dumps"), "{\"z\": 1, \"a\": {\"y\": 1, \"b\": 2}}");
        let sorted = sorted_value(&value).expect("sorts");
        assert_eq!(dump(&sorted, plain()).expect("dumps"), "{\"a\": {\"b\": 2, \"y\": 1}, \"z\": 1}");
    }

    #[test]
    fn separators_are_taken_as_they_are() {
        let pair = [";".to_owned(), "=".to_owned()];
        assert_eq!(dumped("{\"a\":[1,2]}", Layout::new(None, Some(&pair), false)), "{\"a\"=[1;2]}");
    }
}
