//! What makes a table of a file out of a list of settings.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, Visitor};

/// A table of settings, each of which may be missing: the type, how it is read and written, and what it says over the
/// settings that were there.
///
/// A setting is one line, `key: Type`, where the key is the field's name. Where a field and its keys differ, the line
/// goes on with how the setting is found in the target and how it is laid over it.
macro_rules! section {
    (
        $(#[$doc:meta])*
        $vis:vis struct $Section:ident for $Target:ty {
            $($key:ident: $Type:ty $(= $read:expr, $write:expr)?;)*
        }
        exclusive: $exclusive:expr;
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
        $vis struct $Section {
            $(#[serde(skip_serializing_if = "Option::is_none")] $key: Option<$Type>,)*
        }

        impl $Section {
            const KEYS: &[&str] = &[$(stringify!($key)),*];

            /// Keys of which a file may use one: each says all that the others could.
            const EXCLUSIVE: &[[&str; 2]] = &$exclusive;
        }

        impl $crate::configs::value::Written for $Section {
            type Value = $Target;

            fn of(target: &$Target) -> Option<Self> {
                Some(Self { $($key: section!(@of target $key $($read)?),)* })
            }

            fn lay_over(&self, target: &mut $Target) {
                $(if let Some(setting) = &self.$key {
                    section!(@over setting target $key $($write)?);
                })*
            }
        }

        impl<'de> serde::Deserialize<'de> for $Section {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Table;

                impl<'de> serde::de::Visitor<'de> for Table {
                    type Value = $Section;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a table of settings")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$Section, A::Error> {
                        use $crate::configs::section::{Key, Ranged, note};
                        let (mut section, mut seen) = ($Section::default(), Vec::new());
                        while let Some(key) = map.next_key_seed(Key($Section::KEYS))? {
                            note(&mut seen, key, $Section::EXCLUSIVE)?;
                            $(if key == stringify!($key) {
                                let what_is_wrong = |setting: &$Type| {
                                    $Section { $key: Some(setting.clone()), ..Default::default() }.own_problem()
                                };
                                section.$key = Some(map.next_value_seed(Ranged::new(what_is_wrong))?);
                                continue;
                            })*
                        }
                        Ok(section)
                    }
                }

                deserializer.deserialize_map(Table)
            }
        }
    };
    (@of $target:ident $key:ident) => {
        $crate::configs::value::Written::of(&$target.$key)
    };
    (@of $target:ident $key:ident $read:expr) => {
        $read($target)
    };
    (@over $setting:ident $target:ident $key:ident) => {
        $crate::configs::value::Written::lay_over($setting, &mut $target.$key)
    };
    (@over $setting:ident $target:ident $key:ident $write:expr) => {
        $write($setting, $target)
    };
}
pub(super) use section;

/// A key, out of those that are known. It is refused as it is read, so that a format that knows lines can name its.
pub(super) struct Key(pub(super) &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a setting")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<&'static str, E> {
        let known = self.0.iter().find(|known| **known == name);
        known.copied().ok_or_else(|| E::unknown_field(name, self.0))
    }
}

/// A value that is checked as it is read, for the same reason.
pub(super) struct Ranged<T, F> {
    what_is_wrong: F,
    makes: PhantomData<fn() -> T>,
}

impl<T, F> Ranged<T, F>
where
    F: FnOnce(&T) -> Option<String>,
{
    pub(super) fn new(what_is_wrong: F) -> Self {
        Self { what_is_wrong, makes: PhantomData }
    }
}

impl<'de, T, F> DeserializeSeed<'de> for Ranged<T, F>
where
    T: Deserialize<'de>,
    F: FnOnce(&T) -> Option<String>,
{
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        let setting = T::deserialize(deserializer)?;
        match (self.what_is_wrong)(&setting) {
            Some(problem) => Err(de::Error::custom(problem)),
            None => Ok(setting),
        }
    }
}

/// Takes a key down; refuses one that is there already, or that says the same as another.
pub(super) fn note<E: de::Error>(
    seen: &mut Vec<&'static str>,
    key: &'static str,
    exclusive: &[[&'static str; 2]],
) -> Result<(), E> {
    if seen.contains(&key) {
        return Err(E::duplicate_field(key));
    }
    let with = |pair: &&[&'static str; 2]| pair.contains(&key) && pair.iter().any(|other| seen.contains(other));
    if let Some([one, other]) = exclusive.iter().find(with) {
        return Err(E::custom(format_args!("`{one}` and `{other}` exclude each other")));
    }
    seen.push(key);
    Ok(())
}
