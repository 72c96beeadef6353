//! Builds the preload shim and leaves it where `include_bytes!` finds it.
//!
//! The shim is a crate of its own without libc and without std, so it cannot be a dependency in the
//! usual way; it is one call of the very compiler that builds maitred. Nothing else is needed.

use std::env::var_os;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

const SHIM: &str = "src/adapt/preload/shim";

fn main() {
    println!("cargo:rerun-if-changed={SHIM}");
    println!("cargo:rerun-if-changed=src/wire/environment.rs");
    let out = PathBuf::from(var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("shim.so");
    let mut rustc = Command::new(var_os("RUSTC").expect("cargo sets RUSTC"));
    rustc.args(["--crate-name", "maitred_shim", "--crate-type", "cdylib", "--edition", "2024"]);
    rustc.arg("--target").arg(var_os("TARGET").expect("cargo sets TARGET"));
    rustc.args(["-C", "panic=abort", "-C", "opt-level=2", "-C", "strip=debuginfo", "-C", "codegen-units=1"]);
    // musl targets link statically by default and then know no shared objects.
    rustc.args(["-C", "target-feature=-crt-static"]);
    rustc.args(["-C", "link-arg=-nostdlib", "-C", "link-arg=-nostartfiles", "-C", "link-arg=-Wl,--as-needed"]);
    if let Some(linker) = var_os("RUSTC_LINKER") {
        let mut arg = OsString::from("linker=");
        arg.push(linker);
        rustc.arg("-C").arg(arg);
    }
    rustc.arg(format!("{SHIM}/shim.rs")).arg("-o").arg(&out);
    let status = rustc.status().expect("the compiler that builds this also builds the shim");
    assert!(status.success(), "building the preload shim failed: {rustc:?}");
}
