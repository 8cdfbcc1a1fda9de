//! A source analyser: parses Rust files, keeps their trees, and asks them what they declare and call.
//! Single-threaded; many small boxes of few sizes, freed tree by tree.

mod common;

use std::alloc::System;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;

use quote::ToTokens;
use syn::visit::{self, Visit};
use trace::Recorder;

#[global_allocator]
static ALLOCATOR: Recorder<System> = Recorder::new(System);

#[derive(Default)]
struct Survey {
    /// Signatures by function name.
    functions: BTreeMap<String, Vec<String>>,
    /// How often each method is called.
    calls: BTreeMap<String, usize>,
}

impl<'ast> Visit<'ast> for Survey {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let name = signature.ident.to_string();
        let text = signature.to_token_stream().to_string();
        self.functions.entry(name).or_default().push(text);
        visit::visit_signature(self, signature);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        *self.calls.entry(call.method.to_string()).or_default() += 1;
        visit::visit_expr_method_call(self, call);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let sources = common::files(&common::root().join("src"), "rs")?;
    let mut trees = Vec::new();
    for path in &sources {
        trees.push(syn::parse_file(&fs::read_to_string(path)?)?);
    }
    let mut survey = Survey::default();
    for tree in &trees {
        survey.visit_file(tree);
    }
    let mut calls: Vec<_> = survey.calls.iter().collect();
    calls.sort_by_key(|&(name, &count)| (std::cmp::Reverse(count), name));
    println!(
        "{} files, {} function names",
        trees.len(),
        survey.functions.len()
    );
    for (name, count) in calls.iter().take(5) {
        println!("{count:6} calls of {name}");
    }
    Ok(())
}
