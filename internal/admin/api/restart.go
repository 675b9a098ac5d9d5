package api

// Restart asks a daemon to start its successor, and to end when the successor
// serves; the answer is true. Both daemons have this command.
const Restart = "restart"
