//! The tree looked at as text: what a reviewer would otherwise have to remember. Each rule is a small checker that takes text
//! and gives complaints, and each checker is shown to fail on a bad snippet beside it. Nothing is built here, and nothing
//! of the product started but `--help`.

#![expect(clippy::expect_used, reason = "a test that cannot read the tree has nothing better to do")]

mod arrows;
mod closing;
mod decisions;
mod defects;
mod examples;
mod limits;
mod locks;
mod map;
mod names;
mod source;
mod words;

/// One rule broken at one place, as a line for a human.
pub(crate) type Complaint = String;

/// Fails with all complaints at once, one a line.
#[track_caller]
pub(crate) fn none_of(complaints: &[Complaint]) {
    assert!(complaints.is_empty(), "{} complaints:\n  {}", complaints.len(), complaints.join("\n  "));
}
