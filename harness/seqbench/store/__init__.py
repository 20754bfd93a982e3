"""The run store: folders that hold everything known of a run, written so that nothing is lost or left half."""
