//! Who fills a volume: the built-in Azure provider, or another provider's socket.

pub mod external;
