//! The emulator under test as its users meet it: over real HTTPS, and as a program.

#[cfg(test)]
mod harness;
#[cfg(test)]
mod material;

#[cfg(test)]
mod access;
#[cfg(test)]
mod admin;
#[cfg(test)]
mod assertions;
#[cfg(test)]
mod entra;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod program;
#[cfg(test)]
mod python_sdk;
#[cfg(test)]
mod records;
#[cfg(test)]
mod secrets;
