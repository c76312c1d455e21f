//! Tests of the emulator over real HTTPS, and of its program.

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
mod go_sdk;
#[cfg(test)]
mod javascript_sdk;
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
mod sdk_examples;
#[cfg(test)]
mod sdk_logins;
#[cfg(test)]
mod sdk_machine;
#[cfg(test)]
mod sdk_reads;
#[cfg(test)]
mod secrets;
