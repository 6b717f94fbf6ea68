//! The `sersync2` binary: parse, run, exit code.

fn main() -> std::process::ExitCode {
    sersync::commands::run(std::env::args_os())
}
