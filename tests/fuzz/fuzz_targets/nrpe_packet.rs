//! Bytes from a coverage-guided fuzzer against the NRPE packet parsers. The rules are those of `tests::packets`, which the plain
//! tests hold against seeded inputs; here the fuzzer finds its own way to the branches that those miss.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    tests::packets::examine(bytes);
});
