"""What multitask prompt tuning is put beside: a module for each method, or for a family; its row is in `methods`."""
