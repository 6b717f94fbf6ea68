//! The `sersync2` binary: parse, run, exit code.

fn main() -> std::process::ExitCode {
    sersync::daemon::run(std::env::args_os())
}
