//! Every configuration in docs/ or a README loads without warnings.

use std::fs;
use std::path::Path;

use sersync::config::{LoadOptions, PluginName, load_bytes};

/// The XML blocks of `page` that hold a complete file.
fn configurations(page: &str) -> Vec<&str> {
    let blocks = page.split("```xml\n").skip(1);
    let texts = blocks.filter_map(|block| block.split("```").next());
    texts.filter(|text| text.contains("<head")).collect()
}

/// A file without remotes is meant for `-m` with the first plugin it defines.
fn options(text: &str) -> LoadOptions {
    let defined =
        |(name, _): &(&str, PluginName)| text.contains(&format!("<plugin name=\"{name}\">"));
    let plugin = PluginName::ALL.into_iter().find(defined);
    LoadOptions {
        plugin_alone: plugin.filter(|_| !text.contains("<remote")).map(|(_, plugin)| plugin),
        ..LoadOptions::default()
    }
}

#[test]
fn configurations_in_the_docs_load_without_a_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("docs")).unwrap().chain(fs::read_dir(root).unwrap());
    let pages = entries.map(|entry| entry.unwrap().path());
    let mut count = 0;
    for path in pages.filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let page = fs::read_to_string(&path).unwrap();
        for text in configurations(&page) {
            let loaded = load_bytes(&path.to_string_lossy(), text.as_bytes(), &options(text));
            let loaded = loaded.unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(loaded.warning_lines(), [""; 0], "{}\n{text}", path.display());
            count += 1;
        }
    }
    assert!(count >= 18, "{count} configurations found");
}
