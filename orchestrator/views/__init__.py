"""What the terminal shows: the live view, plain lines, the leaderboard."""
