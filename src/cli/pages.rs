//! Completions for shells, and manual pages.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};

use super::{Cli, DONE};

/// Print what a shell needs to complete commands and options.
///
/// For bash: veinfs completions bash > ~/.local/share/bash-completion/completions/veinfs
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut shown(), "veinfs", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(DONE)
}

/// Write manual pages into a directory.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Where
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<u8> {
    std::fs::create_dir_all(&args.dir)?;
    let command = shown();
    write(&args.dir, "veinfs.1", &page(&command, "veinfs", MAIN))?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("veinfs-{}", sub.get_name());
        write(&args.dir, &format!("{name}.1"), &page(sub, &name, EACH))?;
    }
    write(&args.dir, "mount.veinfs.8", HELPER.as_bytes())?;
    Ok(DONE)
}

fn write(dir: &Path, name: &str, text: &[u8]) -> std::io::Result<()> {
    std::fs::write(dir.join(name), text)
}

/// The commands that people use.
fn shown() -> Command {
    let whole = Cli::command();
    let mut command = Command::new("veinfs").version(env!("CARGO_PKG_VERSION"));
    if let Some(about) = whole.get_about() {
        command = command.about(about.clone());
    }
    let commands = whole.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned();
    command.subcommands(commands).subcommand_required(true)
}

fn page(command: &Command, name: &str, more: &str) -> Vec<u8> {
    let named: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let man = clap_mangen::Man::new(command.clone().name(named).disable_help_subcommand(true)).manual("veinfs");
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = man.render_title(&mut text);
    let _ = man.render_name_section(&mut text);
    let _ = man.render_synopsis_section(&mut text);
    let _ = man.render_description_section(&mut text);
    if command.get_arguments().next().is_some() {
        let _ = man.render_options_section(&mut text);
    }
    if command.has_subcommands() {
        let _ = man.render_subcommands_section(&mut text);
    }
    text.extend_from_slice(more.as_bytes());
    text
}

const MAIN: &str = r#".SH "EXIT STATUS"
0 if all went well, 1 if it failed or nothing matched where that is the question, 2 if the command line or a pattern is
wrong, 3 if part of the sources could not be read.
.SH FILES
.TP
~/.cache/veinfs
indexes
.TP
~/.config/veinfs/mounts.d, /etc/veinfs/mounts.d
standing mounts, see \fBveinfs\-mount\fR(1)
.TP
MOUNTPOINT/.veinfs
the state of a mount: status.json, matches.ndjson, errors.ndjson, metrics, patterns, near
.SH EXAMPLES
.nf
veinfs mount /data /mnt/runs \-p run.yaml
ls /mnt/runs/run
veinfs unmount /mnt/runs
.fi
.SH "SEE ALSO"
\fBmount.veinfs\fR(8), \fBfusermount3\fR(1)
"#;

const EACH: &str = r#".SH "EXIT STATUS"
0 if all went well, 1 if it failed or nothing matched where that is the question, 2 if the command line or a pattern is
wrong, 3 if part of the sources could not be read.
.SH "SEE ALSO"
\fBveinfs\fR(1)
"#;

const HELPER: &str = r#".TH MOUNT.VEINFS 8 "" veinfs veinfs
.SH NAME
mount.veinfs \- mount what matches patterns, from fstab
.SH SYNOPSIS
\fBmount \-t veinfs\fR [\fB\-o\fR OPTION,...] SOURCE[#SOURCE...] MOUNTPOINT
.SH DESCRIPTION
The helper of \fBmount\fR(8) for file systems of type veinfs or fuse.veinfs. Each SOURCE is PATH or NAME=PATH; \e# stands for
a # in one. With the option config=NAME, the file of that name says what is mounted, and the source is none.
.SH OPTIONS
.TP
pattern=PATTERN
a pattern file, or the name of a built\-in pattern; as often as needed
.TP
config=NAME
a file in /etc/veinfs/mounts.d
.PP
and the long options of \fBveinfs\-mount\fR(1), with their values behind =, and with _ in place of \- where that is liked
better: view=all, poll=5m, no_index. Those of \fBmount\fR(8) that are for fstab alone are passed over. No option can have a
comma in it.
.SH "EXIT STATUS"
0 if it is mounted, 1 if the line is wrong, 2 if the system refuses, 32 if it cannot be mounted.
.SH EXAMPLES
.nf
/data/runs#/mnt/nas /srv/runs veinfs pattern=/etc/veinfs/run.yaml,allow_other,nofail 0 0
none /srv/bids veinfs config=bids,_netdev,nofail 0 0
.fi
.SH "SEE ALSO"
\fBveinfs\-mount\fR(1), \fBfstab\fR(5)
"#;
