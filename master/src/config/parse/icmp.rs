//! `icmp: { packets: 5, warning: { rta: 200ms, loss: 40% }, critical: … }` → raw. Knows which keys and bounds there are, not what
//! is meant where nothing is said.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ICMP_KEYS, ICMP_LEVEL_KEYS, Parser};
use crate::config::diagnostic::At;
use crate::config::raw::{RawIcmp, RawIcmpLevel};
use crate::config::yaml::{Key, Kind, Node};

/// Fewest and most requests of one check.
pub(super) const PACKETS_BOUNDS: RangeInclusive<u64> = 1..=20;
/// Shortest and longest round trip that a level may name.
pub(super) const RTA_BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(60));
const LATER_KEYS: &[&str] = &["address", "interval", "size"];

impl Parser<'_> {
    pub(super) fn icmp(&mut self, node: &Node) -> RawIcmp {
        let mut icmp = RawIcmp::default();
        for (key, node) in self.fields().entries(node, "`icmp`") {
            match key.text.as_str() {
                "packets" => icmp.packets = self.fields().integer(node, "packets", PACKETS_BOUNDS),
                "warning" => icmp.warning = self.icmp_level(key, node),
                "critical" => icmp.critical = self.icmp_level(key, node),
                _ => self.fields().unknown(key, "key of `icmp`", ICMP_KEYS, LATER_KEYS),
            }
        }
        icmp
    }

    fn icmp_level(&mut self, level: &Key, node: &Node) -> RawIcmpLevel {
        let what = format!("`{}` of icmp", level.text);
        let mut levels = RawIcmpLevel::default();
        for (key, node) in self.fields().entries(node, &what) {
            match key.text.as_str() {
                "rta" => levels.rta = self.fields().interval(node, "rta", RTA_BOUNDS),
                "loss" => levels.loss = self.percent(node, "loss"),
                _ => self.fields().unknown(key, &format!("key of {what}"), ICMP_LEVEL_KEYS, &[]),
            }
        }
        levels
    }

    /// A share with its sign, `20%`.
    fn percent(&mut self, node: &Node, key: &str) -> Option<At<u64>> {
        let text = match &node.kind {
            Kind::Scalar { text, .. } => text.as_str(),
            _ => "",
        };
        let number = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        match number.and_then(|number| number.parse().ok()).filter(|percent| *percent <= 100) {
            Some(percent) => Some(At::new(percent, node.place)),
            None => {
                let hint = match text.parse::<u64>() {
                    Ok(number) if number <= 100 => format!("write {number}%"),
                    _ => format!("as in {key}: 20%"),
                };
                let message = format!("`{key}` must be a share from 0% to 100%, and this is {}", node.describe());
                self.findings.error(node.place, message, hint);
                None
            }
        }
    }
}
