//! The part of a file that a request wants: one range of bytes (RFC 9110, section 14). Pure.

use axum::http::HeaderMap;
use axum::http::header::{IF_RANGE, RANGE};

/// What a request wants of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedBytes {
    /// All of it.
    Whole,
    /// The bytes from the first number up to the second one, which is not included.
    Part(u64, u64),
    /// Bytes that the file does not have.
    Nothing,
}

/// What these headers want of a file of this length, which has this tag. Several ranges, and what cannot be
/// read, count as a wish for all of it.
pub fn wanted(headers: &HeaderMap, length: u64, tag: Option<&str>) -> WantedBytes {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // The client has a part of what may be another version.
    if headers.contains_key(IF_RANGE) && text(IF_RANGE) != tag {
        return WantedBytes::Whole;
    }
    text(RANGE).and_then(|range| parse(range, length)).unwrap_or(WantedBytes::Whole)
}

fn parse(range: &str, length: u64) -> Option<WantedBytes> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    let (start, end) = if first.is_empty() {
        (length.saturating_sub(number(last)?), length)
    } else {
        let start = number(first)?;
        let end = match last {
            "" => length,
            last => number(last).filter(|last| start <= *last)?.saturating_add(1).min(length),
        };
        (start, end)
    };
    Some(if start < end { WantedBytes::Part(start, end) } else { WantedBytes::Nothing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read_and_anything_else_is_a_wish_for_the_whole_file() {
        let ranges = [
            ("bytes=0-0", WantedBytes::Part(0, 1)),
            ("bytes=2-", WantedBytes::Part(2, 10)),
            ("bytes=2-4", WantedBytes::Part(2, 5)),
            ("bytes=2-99999999999999999999999", WantedBytes::Part(2, 10)),
            ("bytes=-3", WantedBytes::Part(7, 10)),
            ("bytes=-30", WantedBytes::Part(0, 10)),
            ("bytes=10-", WantedBytes::Nothing),
            ("bytes=-0", WantedBytes::Nothing),
            ("bytes=99999999999999999999999-", WantedBytes::Nothing),
            ("bytes=4-2", WantedBytes::Whole),
            ("bytes=0-1,4-5", WantedBytes::Whole),
            ("bytes=+1-2", WantedBytes::Whole),
            ("bytes=-", WantedBytes::Whole),
            ("bytes=", WantedBytes::Whole),
            ("lines=1-2", WantedBytes::Whole),
        ];
        for (range, expected) in ranges {
            let headers = HeaderMap::from_iter([(RANGE, range.parse().unwrap())]);
            assert_eq!(wanted(&headers, 10, None), expected, "{range}");
        }
        let headers = HeaderMap::from_iter([(RANGE, "bytes=0-".parse().unwrap())]);
        assert_eq!(wanted(&headers, 0, None), WantedBytes::Nothing);
        assert_eq!(wanted(&HeaderMap::new(), 0, None), WantedBytes::Whole);
        let with_tag =
            [(RANGE, "bytes=0-1".parse().unwrap()), (IF_RANGE, "\"a\"".parse().unwrap())];
        let headers = HeaderMap::from_iter(with_tag);
        assert_eq!(wanted(&headers, 9, Some("\"a\"")), WantedBytes::Part(0, 2));
        assert_eq!(wanted(&headers, 9, Some("\"b\"")), WantedBytes::Whole);
        assert_eq!(wanted(&headers, 9, None), WantedBytes::Whole);
    }
}
