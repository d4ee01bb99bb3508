"""What an answer has to do, exercise by exercise; reading these gives hints away."""
