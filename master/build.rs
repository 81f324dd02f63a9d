//! Tells cargo to embed the web client again when it was built again. Builds nothing itself and never calls npm: `make web` does.

use std::path::Path;

fn main() {
    // A path that is not there would count as changed at every build.
    let built = Path::new("web/dist").is_dir();
    println!("cargo:rerun-if-changed={}", if built { "web/dist" } else { "web" });
    println!("cargo:rerun-if-changed=build.rs");
}
