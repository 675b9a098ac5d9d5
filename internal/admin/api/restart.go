package api

// Restart has a daemon start its successor and end when that serves; the answer
// is true. Every daemon has this command.
const Restart = "restart"
