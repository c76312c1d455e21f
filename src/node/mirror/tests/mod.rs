mod agenda;
mod files;
mod mistakes;
