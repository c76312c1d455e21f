//! The entry point; `cmd` has the command line.

use std::process::ExitCode;

/// Wipes memory when it is freed, because libraries copy secrets into their own buffers.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    match keyvault_csi::cmd::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "keyvault-csi: {error:#}");
            ExitCode::FAILURE
        }
    }
}
