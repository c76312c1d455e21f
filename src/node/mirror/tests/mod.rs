mod files;
mod mistakes;
mod users;
