//! Units of performance data: what the plugin wrote → a base unit and a factor, by Icinga 2's table.
//!
//! State and API keep the text of the plugin; only writers to metric stores ask here. The surprise: case decides for
//! bits against bytes and for milli against mega in amperes, but not for seconds, and `m` alone is minutes. `KB` is 1000
//! here although many plugins mean 1024: dashboards made for Icinga expect that.

/// What a unit text means to a metric store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BaseUnit {
    /// Name of the base unit as Icinga 2 writes it (`seconds`, `bytes`, …); empty for none or unknown.
    pub name: &'static str,
    /// True for `c`: the value only ever rises.
    pub counter: bool,
    multiply: f64,
    divide: f64,
}

impl BaseUnit {
    const NONE: Self = Self { name: "", counter: false, multiply: 1.0, divide: 1.0 };

    const fn new(name: &'static str, multiply: f64, divide: f64) -> Self {
        Self { name, counter: false, multiply, divide }
    }

    /// The value in the base unit, or none if it is too great for a number.
    ///
    /// Small units divide instead of multiplying by 0.001, which no binary number is: 12.445 ms is 0.012445 s.
    #[must_use]
    pub fn scale(&self, value: f64) -> Option<f64> {
        let scaled = value * self.multiply / self.divide;
        scaled.is_finite().then_some(scaled)
    }
}

/// The base unit of a unit text. An unknown text has factor 1 and no name.
#[must_use]
pub fn base_unit(text: &str) -> BaseUnit {
    exact_case(text)
        .or_else(|| data(text))
        .or_else(|| electric(text))
        .or_else(|| any_case(text))
        .unwrap_or(BaseUnit::NONE)
}

fn exact_case(text: &str) -> Option<BaseUnit> {
    Some(match text {
        "" => BaseUnit::NONE,
        "%" => BaseUnit::new("percent", 1.0, 1.0),
        "c" => BaseUnit { counter: true, ..BaseUnit::NONE },
        "C" => BaseUnit::new("degrees-celsius", 1.0, 1.0),
        _ => return None,
    })
}

fn any_case(text: &str) -> Option<BaseUnit> {
    const TABLE: [(&str, BaseUnit); 20] = [
        ("ns", BaseUnit::new("seconds", 1.0, 1e9)),
        ("us", BaseUnit::new("seconds", 1.0, 1e6)),
        ("ms", BaseUnit::new("seconds", 1.0, 1e3)),
        ("s", BaseUnit::new("seconds", 1.0, 1.0)),
        ("m", BaseUnit::new("seconds", 60.0, 1.0)),
        ("h", BaseUnit::new("seconds", 3600.0, 1.0)),
        ("d", BaseUnit::new("seconds", 86400.0, 1.0)),
        ("f", BaseUnit::new("degrees-fahrenheit", 1.0, 1.0)),
        ("k", BaseUnit::new("degrees-kelvin", 1.0, 1.0)),
        ("ng", BaseUnit::new("grams", 1.0, 1e9)),
        ("ug", BaseUnit::new("grams", 1.0, 1e6)),
        ("mg", BaseUnit::new("grams", 1.0, 1e3)),
        ("g", BaseUnit::new("grams", 1.0, 1.0)),
        ("kg", BaseUnit::new("grams", 1e3, 1.0)),
        ("t", BaseUnit::new("grams", 1e6, 1.0)),
        ("ml", BaseUnit::new("liters", 1.0, 1e3)),
        ("l", BaseUnit::new("liters", 1.0, 1.0)),
        ("hl", BaseUnit::new("liters", 100.0, 1.0)),
        ("packets", BaseUnit::new("packets", 1.0, 1.0)),
        ("lm", BaseUnit::new("lumens", 1.0, 1.0)),
    ];
    if text.eq_ignore_ascii_case("dbm") {
        return Some(BaseUnit::new("decibel-milliwatts", 1.0, 1.0));
    }
    TABLE.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, unit)| *unit)
}

/// Power of a prefix from kilo up, in either case.
fn great_prefix(letter: u8) -> Option<i32> {
    b"kmgtpezy".iter().position(|known| *known == letter.to_ascii_lowercase()).and_then(|at| i32::try_from(at + 1).ok())
}

/// Bits and bytes: `b` `B`, `MB`, `mb`, `KiB`, `gIb`.
fn data(text: &str) -> Option<BaseUnit> {
    let (unit, prefix) = text.as_bytes().split_last()?;
    let name = match unit {
        b'b' => "bits",
        b'B' => "bytes",
        _ => return None,
    };
    let multiply = match prefix {
        [] => 1.0,
        [letter] => 1000f64.powi(great_prefix(*letter)?),
        [letter, b'i' | b'I'] => 1024f64.powi(great_prefix(*letter)?),
        _ => return None,
    };
    Some(BaseUnit::new(name, multiply, 1.0))
}

/// Amperes, ohms, volts, watts, and the first and last of them times seconds, minutes, hours.
fn electric(text: &str) -> Option<BaseUnit> {
    let bytes = text.as_bytes();
    let unit_at = |at: usize| bytes.get(at).map(u8::to_ascii_lowercase).filter(|unit| b"aovw".contains(unit));
    let (prefix, unit, rest) = match (unit_at(0), unit_at(1)) {
        (Some(unit), _) => (None, unit, &bytes[1..]),
        (None, Some(unit)) => (bytes.first().copied(), unit, &bytes[2..]),
        (None, None) => return None,
    };
    let (multiply, divide) = match prefix {
        None => (1.0, 1.0),
        Some(b'n') => (1.0, 1e9),
        Some(b'u') => (1.0, 1e6),
        Some(b'm') => (1.0, 1e3),
        Some(letter) => (1000f64.powi(great_prefix(letter)?), 1.0),
    };
    let seconds = match rest {
        [] => {
            let name = match unit {
                b'a' => "amperes",
                b'o' => "ohms",
                b'v' => "volts",
                _ => "watts",
            };
            return Some(BaseUnit::new(name, multiply, divide));
        }
        [b's' | b'S'] => 1.0,
        [b'm' | b'M'] => 60.0,
        [b'h' | b'H'] => 3600.0,
        _ => return None,
    };
    match unit {
        b'a' => Some(BaseUnit::new("ampere-seconds", multiply * seconds, divide)),
        b'w' => Some(BaseUnit::new("watt-hours", multiply * seconds, divide * 3600.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// what the plugin writes → what a store gets
    const SCALED: &str = "
        1           1               -
        5foo        5               -
        42%         42              percent
        7c          7               -
        -3.25C      -3.25           degrees-celsius
        80f         80              degrees-fahrenheit
        80F         80              degrees-fahrenheit
        273k        273             degrees-kelvin
        12.445ms    0.012445        seconds
        12.445MS    0.012445        seconds
        250us       0.00025         seconds
        3ns         0.000000003     seconds
        2m          120             seconds
        2M          120             seconds
        2h          7200            seconds
        1d          86400           seconds
        1B          1               bytes
        1b          1               bits
        12.5MB      12500000        bytes
        12.5mB      12500000        bytes
        12.5mb      12500000        bits
        1KB         1000            bytes
        1KiB        1024            bytes
        1kIb        1024            bits
        1MiB        1048576         bytes
        1tb         1000000000000   bits
        1YB         1000000000000000000000000 bytes
        1KKB        1               -
        1A          1               amperes
        5mA         0.005           amperes
        5MA         5000000         amperes
        5ua         0.000005        amperes
        2kOh        2               -
        2ko         2000            ohms
        230V        230             volts
        1.5kW       1500            watts
        2kWh        2000            watt-hours
        3600Ws      1               watt-hours
        60wm        1               watt-hours
        1Ah         3600            ampere-seconds
        1mAh        3.6             ampere-seconds
        3Vh         3               -
        2kg         2000            grams
        1t          1000000         grams
        3mg         0.003           grams
        2hl         200             liters
        5ml         0.005           liters
        9packets    9               packets
        9lm         9               lumens
        -40dBm      -40             decibel-milliwatts
    ";

    #[test]
    fn units_scale_to_icingas_base_units() {
        let mut rows = 0;
        for row in SCALED.lines().filter(|row| !row.trim().is_empty()) {
            let columns: Vec<&str> = row.split_whitespace().collect();
            let digits = columns[0].rfind(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap() + 1;
            let (value, unit) = columns[0].split_at(digits);
            let unit = base_unit(unit);
            assert_eq!(unit.scale(value.parse().unwrap()), columns[1].parse().ok(), "{row}");
            assert_eq!(unit.name, columns[2].trim_matches('-'), "{row}");
            rows += 1;
        }
        assert_eq!(rows, 50);
    }

    #[test]
    fn only_c_is_a_counter() {
        assert!(base_unit("c").counter);
        assert!(!base_unit("C").counter);
        assert!(!base_unit("").counter);
    }

    #[test]
    fn a_value_too_great_for_its_unit_is_none() {
        assert_eq!(base_unit("YB").scale(1e300), None);
    }

    proptest! {
        #[test]
        fn any_text_has_a_base_unit(text in ".{0,8}") {
            prop_assert!(base_unit(&text).scale(1.0).is_some());
        }
    }
}
