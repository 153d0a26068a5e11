//! bedplate's own configuration files: what cannot be read is said, before anything is done.

use super::{Place, ran};

#[test]
fn a_wrong_setting_is_named() {
    let place = Place::with("", "");
    for (text, says) in [
        ("registries = {}", "`registries`"),
        ("[registry.\"r\"]\nmirror = []", "`mirror`"),
        ("[registry.\"r\"]\nplain-http = \"yes\"", "invalid type: string"),
        ("timeout-seconds = 0", "from 1 to 3600"),
        ("timeout-seconds = 100000", "from 1 to 3600"),
        ("retries = -1", "-1"),
        ("docker-socket = ", "config.toml:1"),
    ] {
        place.config(text);
        let says = ["config.toml` is not a configuration", says];
        place.refuses(["lock", "p"], 2, &says, "mend that line");
    }
}

#[test]
fn one_named_by_the_environment_stands_alone() {
    let place = Place::with("", "");
    place.config("nonsense");
    place.put("other.toml", "retries = 1");
    ran(place.command(["lock", "p"]).env("BEDPLATE_CONFIG", place.at("other.toml"))).exits(0);
    let missing = ran(place.command(["lock", "p"]).env("BEDPLATE_CONFIG", place.at("none.toml")));
    missing.is_refusal(2, &["none.toml` does not exist"], "");
}
