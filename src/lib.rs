//! veinfs finds directory structures by declarative patterns and mounts them as folders.
//!
//! The modules, in the order in which data flows. `ARCHITECTURE.md` has who depends on whom, and what each never knows.
//!
//! From the command line to a compiled question:
//! - [`cli`]: arguments to options, one file a subcommand, all printing; [`main`](cli::main) runs one
//! - [`daemon`]: a mount in the background, this program started once more
//! - [`signals`]: the end of a mount as a value, by a signal or by its session
//! - [`config`]: what the arguments name, resolved once: patterns compiled, sources found
//! - [`pattern`]: what a user writes, checked; the errors with their places and cures
//!   - [`pattern::load`]: JSON, YAML and TOML to patterns, and back to JSON
//!   - [`pattern::library`]: the built-in patterns
//!   - [`pattern::glob`]: globs for one name, and the ways in which captures match
//!   - [`pattern::capture`]: the expressions of captures, each an automaton
//!   - [`pattern::compile`]: patterns to an automaton
//!   - [`pattern::lint`]: what can never hold, or is likely not meant
//! - [`automaton`]: all patterns as one bottom-up tree automaton
//!
//! The pure core that answers it:
//! - [`matcher`]: automaton × a directory's files × its children's states → its states
//!   - [`matcher::names`]: all globs at once over the bytes of a name
//!   - [`matcher::mapping`]: values of captures, and their joins
//!   - [`matcher::bits`]: small sets of globs and states
//!
//! From a source to matches:
//! - [`entry`]: names, relative paths and kinds, the shared vocabulary
//! - [`source`]: the trait of trees that are only read
//!   - [`source::local`]: directories of this machine
//!   - [`source::object`]: object stores, by a table of all keys; no command opens one yet
//!     - [`source::object::location`], [`source::object::credentials`], [`source::object::connect`]: where, who, and how
//! - [`shut`]: mount points that are entered on no way
//! - [`listing`]: one directory's entries, matched against all globs as they are read
//!   - [`listing::stored`]: the entries as an index keeps them
//! - [`reader`]: one directory's states from the top down, for what is behind links and what a match shows
//! - [`walk`]: the parallel walk of a source, every directory listed once and judged once
//! - [`scan`]: several sources walked at once, for a command that ends with them
//! - [`infer`]: the pattern that example directories have in common; pure
//!   - [`infer::gather`]: examples read from a source
//!
//! A mount keeps what it read, and follows its sources:
//! - [`tree`]: a source's directories, their states and what matches, judged upwards while states change; pure
//!   - [`tree::judge`]: judging its directories, and what counts as a match
//!   - [`tree::links`]: which directories depend on a place elsewhere, by links
//!   - [`tree::restore`]: a tree from stored listings, whatever the patterns are
//! - [`crawl`]: reading one directory for a tree, or a new subtree in parallel
//! - [`watch`]: changes in a source, told by fanotify or inotify
//! - [`index`]: listings and matches on disk, shared by processes, never trusted
//!   - [`index::format`]: its bytes
//!   - [`index::survey`]: which indexes there are, and whether they are sound
//! - [`update`]: what is read and told becomes the next view; the publisher
//!   - [`update::source`]: one source kept up to date
//!   - [`update::store`]: the index of a mount
//!
//! From matches to what one sees:
//! - [`view`]: the immutable tree of folders and matches, and what changes from one to the next
//!   - [`view::catalog`]: what all matches are called, kept from view to view
//!   - [`view::saved`]: matches and their names as an index keeps them
//!   - [`view::shards`]: maps that are cheap to copy and to change
//!   - [`view::matches`]: the set of matches, and as NDJSON
//!   - [`view::layout`]: templates that say where a match appears
//!   - [`view::name`]: what matches are called, the same whatever the order of discovery
//!   - [`view::inode`]: inode numbers, in spaces that never meet
//!   - [`view::table`]: directory entries with stable cookies
//! - [`expand`]: what a match shows in one of its directories
//! - [`inside`]: directories on the way to a match and inside it, opened one below the other
//! - [`assess`]: which matches a file belongs to, upward from the file
//!   - [`assess::mounted`]: the same, as a running mount has it
//! - [`shuffle`]: matches copied out, as the view shows them
//!   - [`shuffle::inventory`]: all that a match shows, at one look
//!   - [`shuffle::plan`]: what is done with it; pure
//!   - [`shuffle::dest`]: the directory that is copied to
//! - [`explain`]: why a directory matches or does not, and what would make it match; the nearest misses of a source
//!   - [`explain::outline`]: what is known of a directory, as a value; [`explain::load`] reads it
//!   - [`explain::clauses`]: each clause, met or not; [`explain::near`]: what comes near
//!   - [`explain::cure`]: the shortest list of changes; [`explain::names`]: names for what is not there yet
//!   - [`explain::text`], [`explain::json`]: for people, and for programs
//! - [`live`]: the state of a mount: the current view, how the scan goes, what `.veinfs` says
//! - [`fs`]: kernel requests to replies, the only room that knows fuser
//!   - [`fs::announce`]: inotify events for matches that come and go
//!   - [`fs::mount`]: a mount's life, from the mount point through the scan to the unmount
//! - [`mounts`]: the mounts of this machine: which are ours, whether they live, how they come off

pub mod cli;
pub mod daemon;
pub mod signals;

pub mod config;
pub mod pattern;

pub mod automaton;
pub mod matcher;

pub mod doctor;
pub mod entry;
pub mod shut;
pub mod source;
pub mod standing;
pub mod stores;

pub mod listing;
pub mod reader;
pub mod walk;

pub mod scan;

pub mod infer;

pub mod tree;

pub mod crawl;
pub mod watch;

pub mod index;

pub mod view;

pub mod update;

pub mod expand;
pub mod inside;

pub mod assess;
pub mod explain;
pub mod shuffle;

pub mod live;

pub mod fs;
pub mod mounts;
