//! The smallest program on Flagstone: copy the two lines below the `use`.

use flagstone::Flagstone;

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

fn main() {
    let words: Vec<String> = ["hello", "from", "flagstone"].map(String::from).to_vec();
    println!("{}", words.join(" "));
    if let Some(stats) = Flagstone::stats() {
        println!("{} bytes live", stats.live);
    }
}
