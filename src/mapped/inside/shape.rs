//! What a type looks like in memory, as one number.
#![forbid(unsafe_code)]

/// Builds the shape of a type: a number that differs, as good as surely, for types that differ in name, size, alignment,
/// or in the places and shapes of their fields. Made for [`persist!`](crate::persist) and by hand for what it cannot do.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Shape(u64);

impl Shape {
    /// That of a type of this name, without fields as yet.
    pub const fn of<T>(name: &str) -> Self {
        Self(0xcbf2_9ce4_8422_2325)
            .named(name)
            .with(size_of::<T>() as u64)
            .with(align_of::<T>() as u64)
    }

    /// With a name that matters: that of the next field, say.
    pub const fn named(self, name: &str) -> Self {
        let mut shape = self;
        let bytes = name.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            shape = shape.with(bytes[at] as u64);
            at += 1;
        }
        shape
    }

    /// With a field of this shape, so many bytes from the beginning.
    pub const fn field(self, offset: usize, shape: u64) -> Self {
        self.with(offset as u64).with(shape)
    }

    /// With a number that matters.
    pub const fn with(self, number: u64) -> Self {
        // SplitMix64's function between steps.
        let mut mixed = (self.0 ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed ^ (mixed >> 31))
    }

    /// The number; never 0.
    #[must_use]
    pub const fn number(self) -> u64 {
        if self.0 == 0 { 1 } else { self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_has_another_shape() {
        let shapes = [
            Shape::of::<u64>("one"),
            Shape::of::<u64>("two"),
            Shape::of::<u32>("one"),
            Shape::of::<u64>("one").field(0, 7),
            Shape::of::<u64>("one").field(8, 7),
            Shape::of::<u64>("one").field(0, 8),
            Shape::of::<u64>("one").field(0, 7).field(8, 7),
        ];
        for (place, shape) in shapes.iter().enumerate() {
            let same = shapes
                .iter()
                .filter(|other| other.number() == shape.number());
            assert_eq!(same.count(), 1, "{place}");
        }
    }
}
