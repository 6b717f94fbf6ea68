//! Every sample that an operator may copy is valid. What the elements mean is tested elsewhere.

use std::fs;
use std::path::Path;

use sersync::config::{LoadOptions, load};

#[test]
fn every_sample_configuration_passes_the_check_without_a_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut samples: Vec<_> = fs::read_dir(root.join("config"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .collect();
    samples.push(root.join("confxml.example.xml"));
    assert!(samples.len() > 2);
    for sample in samples {
        // Not `--check`, which also wants the watch path to exist on this machine.
        let loaded = load(&sample, &LoadOptions::default())
            .unwrap_or_else(|error| panic!("{}: {error}", sample.display()));
        assert_eq!(loaded.warning_lines(), Vec::<String>::new(), "{}", sample.display());
    }
}
