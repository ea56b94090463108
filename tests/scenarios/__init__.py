"""What broke in other libraries, each defect proved absent by name."""
