//! The cost of the pure parts: engine, pending set, filter, configuration reader. Run: `cargo bench --bench pure`.
//! Measures no rsync and no kernel.

#[path = "figures.rs"]
mod figures;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    figures::run(&mut criterion, figures::Size::Full);
    criterion.final_summary();
}
