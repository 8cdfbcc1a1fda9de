//! The smallest program on Flagstone: copy the two lines below the `use`.

use flagstone::Flagstone;

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

fn main() {
    let words: Vec<String> = ["hello", "from", "flagstone"].map(String::from).to_vec();
    println!(
        "{} ({} bytes live)",
        words.join(" "),
        Flagstone::stats().live
    );
}
