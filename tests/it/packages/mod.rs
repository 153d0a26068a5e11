//! Packages brought to their locked versions by a real apt and dpkg, in a tree made by mmdebstrap from the machine's
//! own mirror. It changes root's files and mounts, so it needs root.

mod guest;
mod refused;
mod repair;
mod story;
