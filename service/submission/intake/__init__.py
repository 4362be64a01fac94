"""Mail on its way in: what was asked, checked, composed, planned and committed."""
