"""Search: tasks, trials, studies, storage and export."""
