//! The program: see `cmd`.

use std::process::ExitCode;

/// Wipes every block of memory that is given back, so that copies of secrets in libraries' buffers do not stay.
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
