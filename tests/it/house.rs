//! What belongs to a program that is installed: standing mounts, fstab, services, pages, completions, the doctor.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bed::{Output, TestBed, can_mount, eventually, has, is_root, names};

const RUN: &str = "name: run\nfiles: [data.csv]\n";

fn bed() -> TestBed {
    let bed = TestBed::new(&["a/data.csv=", "b/other=", "c/d/data.csv="]);
    bed.file("run.yaml", RUN);
    bed
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_file_says_what_is_mounted() {
    if !can_mount() {
        return;
    }
    let bed = bed();
    let config = bed.file(
        "lab.toml",
        "sources = ['./src']\nmountpoint = 'mnt'\n\
         patterns = ['./run.yaml', {name = 'other', files = ['other']}]\nmax-depth = 2\nno_index = true\n",
    );
    bed.veinfs(["mount", "--wait", "--config", &config]).ok();
    bed.keep(&bed.mnt);
    assert_eq!(names(bed.mnt.join("run")), ["a"]);
    assert_eq!(names(bed.mnt.join("other")), ["b"]);
    fs::create_dir(bed.src.join("e")).and_then(|()| fs::write(bed.src.join("e/data.csv"), "")).expect("written");
    bed.veinfs(["refresh", "--config", &config]).ok();
    assert_eq!(names(bed.mnt.join("run")), ["a", "e"]);
    bed.unmount();
    // What stands on the command line goes before it, also where it says the contrary.
    let index = bed.dir.join("x.index");
    bed.veinfs(["mount", "--wait", "--config", &config, "--max-depth", "5", "--index", text(&index)]).ok();
    bed.keep(&bed.mnt);
    assert_eq!(names(bed.mnt.join("run")), ["a", "d", "e"]);
    assert!(index.exists());
    bed.unmount();
    // Another place for it.
    let other = bed.dir.join("elsewhere");
    fs::create_dir(&other).expect("made");
    bed.veinfs(["mount", "--wait", "--config", &config, text(&other)]).ok();
    bed.keep(&other);
    assert_eq!(names(other.join("other")), ["b"]);
}

#[test]
fn a_file_that_is_wrong_names_the_place() {
    let bed = bed();
    let mount = |text: &str| {
        let config = bed.file("lab.toml", text);
        bed.veinfs(["mount", "--config", &config]).code(2)
    };
    mount("sources = ['src']\npatterns = ['run.yaml']\nmountpoint = 'mnt'\npol = '5m'\n")
        .says("lab.toml: line 4, column 1: `pol` is no key of a mount; did you mean `poll`?");
    mount("sources = ['src']\npatterns = ['run.yaml']\n").says("it names no `mountpoint`");
    mount("sources = ['src'\n").says("lab.toml: line 1");
    mount("sources = ['nowhere']\npatterns = ['run.yaml']\nmountpoint = 'mnt'\nno-index = true\n").says("nowhere");
    let mut command = bed.command(["mount", "--config", "labb"]);
    command.env("XDG_CONFIG_HOME", bed.dir.join("config"));
    fs::create_dir_all(bed.dir.join("config/veinfs/mounts.d")).expect("made");
    fs::write(bed.dir.join("config/veinfs/mounts.d/lab.toml"), "").expect("written");
    Output::of(&mut command).code(2).says("did you mean `lab`?");
}

#[test]
fn mount_has_a_helper() {
    if !can_mount() || !is_root() {
        return;
    }
    let bed = bed();
    let helper = bed.dir.join("mount.veinfs");
    symlink(env!("CARGO_BIN_EXE_veinfs"), &helper).expect("a link");
    let run = |args: &[&str]| Output::of(Command::new(&helper).args(args).env("XDG_CACHE_HOME", bed.dir.join("cache")));
    let pattern = format!("pattern={}", bed.dir.join("run.yaml").display());
    let (src, mnt) = (text(&bed.src), text(&bed.mnt));
    run(&[src, mnt, "-n", "-o", &format!("rw,{pattern},nofail,_netdev,max_depth=2")]).ok();
    bed.keep(&bed.mnt);
    eventually("it shows", || names(bed.mnt.join("run")) == ["a"]);
    // mount(8) sees by this that it is mounted.
    let mounts = fs::read_to_string("/proc/self/mounts").expect("it is read");
    assert!(mounts.lines().any(|line| line.starts_with(&format!("{src} {mnt} fuse.veinfs "))), "{mounts}");
    bed.unmount();
    run(&[src, mnt, "-f", "-o", &pattern]).ok();
    assert!(!bed.is_mounted());
    run(&[src, "-o", &pattern]).code(1).says("SOURCE MOUNTPOINT");
    run(&[src, mnt, "-o", "pattern=nowhere.yaml"]).code(1).says("nowhere.yaml");
    run(&[src, mnt, "-o", &format!("{pattern},nosuchoption")]).code(1).says("nosuchoption");
    run(&[src, mnt, "-o", &format!("{pattern},remount")]).code(1).says("unmount it");
}

#[test]
fn a_service_manager_is_told() {
    if !can_mount() {
        return;
    }
    let bed = bed();
    let socket = bed.dir.join("notify");
    let told = UnixDatagram::bind(&socket).expect("a socket");
    told.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
    let hear = || {
        let mut message = [0; 4096];
        let length = told.recv(&mut message).expect("it is told");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let (src, mnt, run) = (text(&bed.src), text(&bed.mnt), text(&bed.dir.join("run.yaml")).to_owned());
    let mut command = bed.command(["mount", "--foreground", "--no-index", src, mnt, "-p", &run]);
    let mut daemon = command.env("NOTIFY_SOCKET", &socket).stderr(Stdio::null()).spawn().expect("it starts");
    let ready = hear();
    bed.keep(&bed.mnt);
    assert!(ready.contains("READY=1") && ready.contains("STATUS=complete, 2 matches"), "{ready}");
    assert_eq!(names(bed.mnt.join("run")), ["a", "d"], "it is there by then");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.id().cast_signed()), nix::sys::signal::Signal::SIGTERM)
        .expect("a signal");
    assert!(hear().contains("STOPPING=1"));
    assert!(daemon.wait().expect("it ends").success());
}

#[test]
fn units_are_sound() {
    if !has("systemd-analyze") {
        return;
    }
    let bed = bed();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    for kind in ["system", "user"] {
        // As it is installed, and of a name.
        let unit = fs::read_to_string(root.join(kind).join("veinfs@.service")).expect("it is there");
        let unit = unit.replace("/usr/bin/veinfs", env!("CARGO_BIN_EXE_veinfs"));
        let path = bed.dir.join("veinfs@lab.service");
        fs::write(&path, unit).expect("written");
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(format!("--{kind}")).arg(&path);
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("veinfs@")).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}

#[test]
fn pages_and_completions() {
    let bed = bed();
    let pages = bed.dir.join("man");
    bed.veinfs(["man", text(&pages)]).ok();
    let all = names(&pages);
    for page in ["veinfs.1", "veinfs-mount.1", "veinfs-doctor.1", "mount.veinfs.8"] {
        assert!(all.iter().any(|name| name == page), "{all:?}");
    }
    assert!(!all.iter().any(|name| name.contains("guard") || name.contains("announce")), "{all:?}");
    if has("man") {
        for page in &all {
            let mut command = Command::new("man");
            let output = command.args(["--warnings", "-l"]).arg(pages.join(page)).env("MANWIDTH", "100").output();
            let output = output.expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.trim().is_empty(), "{page}: {said}");
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(shown.contains("NAME") && shown.contains("EXIT STATUS"), "{page}: {shown}");
        }
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = bed.veinfs(["completions", shell]).ok().text();
        assert!(text.contains("unmount") && !text.contains("announce"), "{shell}");
        if shell == "bash" {
            let file = bed.file("completion", &text);
            Output::of(Command::new("bash").arg("-n").arg(file)).ok();
        }
    }
}

#[test]
fn the_doctor_says_what_is_wrong() {
    let bed = bed();
    let config = bed.dir.join("config");
    fs::create_dir_all(config.join("veinfs/mounts.d")).expect("made");
    let write = |text: &str| fs::write(config.join("veinfs/mounts.d/lab.toml"), text).expect("written");
    let doctor = |args: &[&str]| {
        let mut command = bed.command(["doctor"].iter().chain(args));
        Output::of(command.env("XDG_CONFIG_HOME", &config).env("XDG_CACHE_HOME", bed.dir.join("cache")))
    };
    write("sources = ['/a']\npatterns = ['bids-dataset']\nmountpoint = '/m'\n");
    let said = doctor(&[]);
    assert!(said.text().contains("lab.toml is sound"), "{}", said.text());
    write("sources = ['/a']\npatterns = ['bids-dataset']\nmountpoint = '/m'\npol = 1\n");
    let said = doctor(&["--json"]).code(1);
    let lines = said.ndjson();
    let wrong: Vec<_> = lines.iter().filter(|line| line["level"] == "failure").collect();
    assert!(wrong.iter().any(|line| line["text"].as_str().is_some_and(|text| text.contains("line 4"))), "{wrong:?}");
}
