//! `sersync2 completions`: prints a completion script for a shell, with all commands.
//! Installs nothing.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use clap_complete::{Shell, generate};

use super::instance::parse;
use crate::args;
use crate::process::print;

/// Print the completions for a shell, for example: sersync2 completions bash > /etc/bash_completion.d/sersync2
#[derive(Debug, Parser)]
#[command(name = "sersync2 completions", bin_name = "sersync2 completions")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: KnownShell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

/// Runs the command.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let args: CompletionsArgs = match parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let shell = match args.shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let mut program = args::command();
    for command in super::COMMANDS {
        let Some(words) = command.words else { continue };
        let words = words().name(command.name);
        program = program.subcommand(words);
    }
    let mut script = Vec::new();
    generate(shell, &mut program, "sersync2", &mut script);
    print(&script);
    ExitCode::SUCCESS
}
