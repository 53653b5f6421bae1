//! Text to [`Pattern`](super::Pattern)s.
